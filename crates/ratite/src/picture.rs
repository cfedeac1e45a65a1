//! A picture of a screen: pixels, read from PNG and PPM, written as PNG, and compared. Pure, but for saving a file.

use std::fmt;
use std::io;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::DynamicImage;
use image::ImageDecoder;
use image::ImageError;
use image::ImageFormat;
use image::ImageReader;
use image::RgbImage;

/// What a screen shows: rows of pixels from top to bottom, each three bytes: red, green, blue.
///
/// Cheap to clone; clones share the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Arc<[u8]>,
}

/// The most bytes that the pixels of a picture may have.
const MOST_BYTES: u64 = 512 << 20;

/// Why bytes are no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read {length} bytes as {format}: {reason}")]
pub struct PictureError {
    /// What they should be: "a PNG".
    pub format: &'static str,
    /// How many bytes there are.
    pub length: usize,
    /// What is wrong with them.
    pub reason: String,
}

impl Picture {
    /// A picture of pixels, three bytes each; `None` if there are not `width * height` of them, or none at all.
    #[must_use]
    pub fn from_rgb(width: u32, height: u32, rgb: impl Into<Arc<[u8]>>) -> Option<Self> {
        let rgb = rgb.into();
        let length = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
        (rgb.len() == length && length > 0).then_some(Self { width, height, rgb })
    }

    /// Reads a PNG. What is transparent in it, is not; 16 bits a channel become 8.
    ///
    /// # Errors
    /// [`PictureError`] when the bytes are no PNG, or one of more than 512 MiB of pixels.
    pub fn from_png(png: &[u8]) -> Result<Self, PictureError> {
        Self::read(png, ImageFormat::Png, "a PNG")
    }

    /// Reads a PPM, which is what every QEMU writes.
    ///
    /// # Errors
    /// [`PictureError`] when the bytes are no PPM, or one of more than 512 MiB of pixels.
    pub fn from_ppm(ppm: &[u8]) -> Result<Self, PictureError> {
        Self::read(ppm, ImageFormat::Pnm, "a PPM")
    }

    fn read(bytes: &[u8], format: ImageFormat, name: &'static str) -> Result<Self, PictureError> {
        let fault = |reason: String| PictureError { format: name, length: bytes.len(), reason };
        let broken = |error: ImageError| fault(error.to_string());
        let decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(broken)?;
        // A few bytes can stand for many, and a bit in them for a whole pixel.
        let (width, height) = decoder.dimensions();
        if decoder.total_bytes().max(u64::from(width) * u64::from(height) * 3) > MOST_BYTES {
            return Err(fault(format!("{width}x{height} pixels are more than 512 MiB")));
        }
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8();
        Self::from_rgb(width, height, image.into_raw()).ok_or_else(|| fault("it has no pixels".into()))
    }

    /// The picture as a PNG, without loss.
    #[must_use]
    pub fn to_png(&self) -> Vec<u8> {
        let mut png = Cursor::new(Vec::new());
        RgbImage::from_raw(self.width, self.height, self.rgb.to_vec())
            .expect("the pixels were counted")
            .write_to(&mut png, ImageFormat::Png)
            .expect("memory takes everything, and a PNG any size");
        png.into_inner()
    }

    /// Writes the picture to a file, as a PNG, over an older one.
    ///
    /// # Errors
    /// What the system says.
    pub fn save_png(&self, path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::write(path, self.to_png())
    }

    /// How many pixels a row has.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// How many rows there are.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Red, green and blue of a pixel; `x` from the left and `y` from the top, from 0 on. `None` outside.
    #[must_use]
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        let inside = x < self.width && y < self.height;
        inside.then(|| self.at(x, y))
    }

    /// All pixels, row by row, three bytes each.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    fn at(&self, x: u32, y: u32) -> [u8; 3] {
        let start = (y as usize * self.width as usize + x as usize) * 3;
        [self.rgb[start], self.rgb[start + 1], self.rgb[start + 2]]
    }

    /// How this picture differs from another, pixel by pixel.
    #[must_use]
    pub fn difference(&self, other: &Self, tolerance: &Tolerance) -> Difference {
        let [this, that] = [self, other].map(|picture| (picture.width, picture.height));
        if this != that {
            return Difference::Size { this, other: that };
        }
        let mut found = Found::default();
        for y in 0..self.height {
            for x in 0..self.width {
                if !tolerance.ignored.iter().any(|region| region.contains(x, y)) {
                    found.compare(x, y, distance(self.at(x, y), other.at(x, y)), tolerance.channel);
                }
            }
        }
        found.told()
    }

    /// Whether this picture is as `reference`, within `tolerance`. Pictures of different sizes never are.
    #[must_use]
    pub fn looks_like(&self, reference: &Self, tolerance: &Tolerance) -> bool {
        self.difference(reference, tolerance).is_within(tolerance)
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}x{})", self.width, self.height)
    }
}

/// The largest difference of a channel.
fn distance(this: [u8; 3], other: [u8; 3]) -> u8 {
    let channels = this.into_iter().zip(other).map(|(this, other)| this.abs_diff(other));
    channels.max().unwrap_or(0)
}

/// A part of a screen, in pixels from its left upper corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first column, from 0 on.
    pub x: u32,
    /// The first row, from 0 on.
    pub y: u32,
    /// How many columns.
    pub width: u32,
    /// How many rows.
    pub height: u32,
}

impl Region {
    /// Whether a pixel is in it.
    #[must_use]
    pub fn contains(&self, x: u32, y: u32) -> bool {
        let within = |at: u32, start: u32, size: u32| at >= start && at - start < size;
        within(x, self.x, self.width) && within(y, self.y, self.height)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} at {},{}", self.width, self.height, self.x, self.y)
    }
}

/// How much two pictures may differ and still look alike. By default, not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tolerance {
    channel: u8,
    share: f64,
    ignored: Vec<Region>,
}

impl Tolerance {
    /// No pixel may differ.
    #[must_use]
    pub fn exact() -> Self {
        Self::default()
    }

    /// How far red, green and blue of a pixel may each be off, of 255, before the pixel counts as different.
    #[must_use]
    pub fn channel(mut self, most: u8) -> Self {
        self.channel = most;
        self
    }

    /// Which share of the pixels that are compared may be different, from 0.0 for none to 1.0 for all.
    #[must_use]
    pub fn share(mut self, most: f64) -> Self {
        self.share = most;
        self
    }

    /// Leaves out a part of the screen, such as a clock or a cursor that blinks. May be said more than once.
    #[must_use]
    pub fn ignoring(mut self, region: Region) -> Self {
        self.ignored.push(region);
        self
    }
}

/// How two pictures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// They have different sizes, so no pixel was compared.
    Size {
        /// Width and height of the picture.
        this: (u32, u32),
        /// Width and height of what it was compared with.
        other: (u32, u32),
    },
    /// They were compared pixel by pixel.
    Pixels {
        /// How many pixels differ by more than the tolerance's channel.
        differing: u64,
        /// How many were compared.
        compared: u64,
        /// The largest difference of a channel, tolerated or not; 0 if all are the same.
        largest: u8,
        /// The smallest part of the screen that holds all differing pixels.
        bounds: Option<Region>,
    },
}

impl Difference {
    /// The share of the compared pixels that differ: 0.0 for none, 1.0 for all, and for pictures of different sizes.
    #[must_use]
    pub fn share(&self) -> f64 {
        match *self {
            Self::Size { .. } => 1.0,
            Self::Pixels { differing: 0, .. } => 0.0,
            #[expect(clippy::cast_precision_loss, reason = "no screen has so many pixels")]
            Self::Pixels { differing, compared, .. } => differing as f64 / compared as f64,
        }
    }

    /// Whether it is no more than `tolerance` takes.
    #[must_use]
    pub fn is_within(&self, tolerance: &Tolerance) -> bool {
        matches!(self, Self::Pixels { .. }) && self.share() <= tolerance.share
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { this, other } => {
                write!(f, "it has {}x{} pixels instead of {}x{}", this.0, this.1, other.0, other.1)
            }
            Self::Pixels { bounds: None, .. } => f.write_str("no pixel differs"),
            Self::Pixels { differing, compared, largest, bounds: Some(bounds) } => {
                write!(
                    f,
                    "{differing} of {compared} pixels differ, by up to {largest} of 255, all in {bounds}"
                )
            }
        }
    }
}

/// What a comparison has found so far.
#[derive(Default)]
struct Found {
    differing: u64,
    compared: u64,
    largest: u8,
    /// The first and the last column and row with a difference.
    edges: Option<[u32; 4]>,
}

impl Found {
    fn compare(&mut self, x: u32, y: u32, distance: u8, tolerated: u8) {
        self.compared += 1;
        self.largest = self.largest.max(distance);
        if distance > tolerated {
            self.differing += 1;
            let [left, right, top, bottom] = self.edges.unwrap_or([x, x, y, y]);
            self.edges = Some([left.min(x), right.max(x), top.min(y), bottom.max(y)]);
        }
    }

    fn told(self) -> Difference {
        let bounds = self.edges.map(|[left, right, top, bottom]| Region {
            x: left,
            y: top,
            width: right - left + 1,
            height: bottom - top + 1,
        });
        let Self { differing, compared, largest, .. } = self;
        Difference::Pixels { differing, compared, largest, bounds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn picture(width: u32, height: u32, at: impl Fn(u32, u32) -> [u8; 3]) -> Picture {
        let rgb: Vec<u8> =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| at(x, y)).collect();
        Picture::from_rgb(width, height, rgb).unwrap()
    }

    fn any_picture() -> impl Strategy<Value = Picture> {
        (1u32..20, 1u32..20).prop_flat_map(|(width, height)| {
            vec(any::<u8>(), (width * height * 3) as usize)
                .prop_map(move |rgb| Picture::from_rgb(width, height, rgb).unwrap())
        })
    }

    proptest! {
        #[test]
        fn a_png_loses_nothing(picture in any_picture()) {
            prop_assert_eq!(Picture::from_png(&picture.to_png()), Ok(picture));
        }

        #[test]
        fn a_ppm_is_read_as_it_was_written(picture in any_picture()) {
            let mut ppm = format!("P6\n{} {}\n255\n", picture.width(), picture.height()).into_bytes();
            ppm.extend(picture.rgb());

            prop_assert_eq!(Picture::from_ppm(&ppm), Ok(picture));
        }

        #[test]
        fn a_picture_looks_like_itself_and_nothing_panics(one in any_picture(), other in any_picture()) {
            prop_assert!(one.looks_like(&one, &Tolerance::exact()));
            let difference = one.difference(&other, &Tolerance::exact());
            prop_assert_eq!(difference.is_within(&Tolerance::exact()), one == other);
        }

        #[test]
        fn whatever_is_no_picture_is_refused(bytes in vec(any::<u8>(), 0..200)) {
            let _told = (Picture::from_png(&bytes), Picture::from_ppm(&bytes));
        }
    }

    #[test]
    fn a_difference_says_how_much_by_how_far_and_where() {
        let black = picture(10, 10, |_, _| [0; 3]);
        let spots =
            picture(10, 10, |x, y| if (x, y) == (2, 3) || (x, y) == (5, 4) { [0, 9, 0] } else { [0, 0, 1] });

        let difference = spots.difference(&black, &Tolerance::exact().channel(1));

        let bounds = Some(Region { x: 2, y: 3, width: 4, height: 2 });
        assert_eq!(difference, Difference::Pixels { differing: 2, compared: 100, largest: 9, bounds });
        assert_eq!(difference.to_string(), "2 of 100 pixels differ, by up to 9 of 255, all in 4x2 at 2,3");
        assert!(!spots.looks_like(&black, &Tolerance::exact().channel(8)));
        assert!(spots.looks_like(&black, &Tolerance::exact().channel(9)));
        assert!(spots.looks_like(&black, &Tolerance::exact().channel(1).share(0.02)));
        assert!(!spots.looks_like(&black, &Tolerance::exact().channel(1).share(0.019)));
    }

    #[test]
    fn what_is_ignored_is_not_compared() {
        let black = picture(10, 10, |_, _| [0; 3]);
        let spot = picture(10, 10, |x, y| if (x, y) == (9, 9) { [255; 3] } else { [0; 3] });
        let corner = Tolerance::exact().ignoring(Region { x: 9, y: 9, width: 1, height: u32::MAX });

        assert!(spot.looks_like(&black, &corner));
        assert!(matches!(spot.difference(&black, &corner), Difference::Pixels { compared: 99, .. }));
    }

    #[test]
    fn different_sizes_are_a_difference_with_a_reason() {
        let (small, large) = (picture(2, 2, |_, _| [0; 3]), picture(4, 1, |_, _| [0; 3]));

        let difference = small.difference(&large, &Tolerance::exact().share(1.0));

        assert_eq!(difference.to_string(), "it has 2x2 pixels instead of 4x1");
        assert!(!difference.is_within(&Tolerance::exact().share(1.0)));
    }

    #[test]
    fn bytes_that_are_no_picture_are_told_apart() {
        let error = Picture::from_png(b"P6\n1 1\n255\nabc").unwrap_err();

        assert!(error.to_string().starts_with("could not read 14 bytes as a PNG: "), "{error}");
        assert_eq!(Picture::from_rgb(1, 2, vec![0; 5]), None);
        assert_eq!(Picture::from_rgb(0, 2, vec![]), None);
    }

    #[test]
    fn a_picture_that_takes_too_much_memory_is_refused_by_its_head() {
        for head in ["P4\n23000 23000\n", "P5\n23000 23000\n255\n", "P6\n60000 60000\n65535\n"] {
            let reason = Picture::from_ppm(head.as_bytes()).unwrap_err().reason;
            assert!(reason.contains("pixels are more than 512 MiB"), "{head:?}: {reason}");
        }
        assert!(!Picture::from_ppm(b"P6\n10000 10000\n255\n").unwrap_err().reason.contains("MiB"));
    }

    #[test]
    fn a_pixel_is_found_by_its_place() {
        let picture = picture(3, 2, |x, y| [x as u8, y as u8, 7]);

        assert_eq!(picture.pixel(2, 1), Some([2, 1, 7]));
        assert_eq!((picture.pixel(3, 0), picture.pixel(0, 2)), (None, None));
    }
}
