//! A serializer that writes nothing and refuses what must not be written: floats that JSON cannot hold, and what is nested
//! too deeply. Pure.
//!
//! serde_json writes NaN and the infinities as `null`; QEMU would get something else than the caller meant. Every level
//! takes stack, here and when it is written; QEMU's own parser stops at 1024.

use serde::Serialize;
use serde::Serializer;
use serde::ser;
use serde::ser::Error as _;

use serde_json::Error;

/// Walks a value and fails at the first float that is not finite, and where arrays and objects are nested too deeply.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FiniteOnly {
    depth: usize,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// `null`, in JSON.
    Nothing,
    Something,
}

/// The deepest nesting that is written: as QEMU's.
const DEEPEST: usize = 1024;

impl FiniteOnly {
    /// One array or object further in.
    fn deeper(self) -> Result<Self, Error> {
        match self.depth < DEEPEST {
            true => Ok(Self { depth: self.depth + 1 }),
            false => Err(Error::custom(format_args!("nested more than {DEEPEST} levels deep"))),
        }
    }
}

fn check(number: f64) -> Result<Found, Error> {
    if number.is_finite() {
        Ok(Found::Something)
    } else {
        Err(Error::custom(format_args!("JSON has no number {number}")))
    }
}

/// Primitives that are fine whatever they hold.
macro_rules! accept {
    ($($method:ident($type:ty))*) => {
        $(fn $method(self, _: $type) -> Result<Found, Error> {
            Ok(Found::Something)
        })*
    };
}

impl Serializer for FiniteOnly {
    type Ok = Found;
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    accept! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64)
        serialize_i128(i128) serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64)
        serialize_u128(u128) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
    }

    fn serialize_f32(self, number: f32) -> Result<Found, Error> {
        check(f64::from(number))
    }

    fn serialize_f64(self, number: f64) -> Result<Found, Error> {
        check(number)
    }

    fn serialize_none(self) -> Result<Found, Error> {
        Ok(Found::Nothing)
    }

    fn serialize_unit(self) -> Result<Found, Error> {
        Ok(Found::Nothing)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Found, Error> {
        Ok(Found::Nothing)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Found, Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<Found, Error> {
        Ok(Found::Something)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Found, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Found, Error> {
        value.serialize(self.deeper()?)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        self.deeper()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        self.deeper()
    }
}

/// The compound forms: each element is walked, whatever they hold, they are something.
macro_rules! walk {
    ($($trait:ident::$method:ident($($name:ty)?))*) => {
        $(impl ser::$trait for FiniteOnly {
            type Ok = Found;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Error> {
                value.serialize(*self).map(drop)
            }

            fn end(self) -> Result<Found, Error> {
                Ok(Found::Something)
            }
        })*
    };
}

walk! {
    SerializeSeq::serialize_element()
    SerializeTuple::serialize_element()
    SerializeTupleStruct::serialize_field()
    SerializeTupleVariant::serialize_field()
    SerializeStruct::serialize_field(&'static str)
    SerializeStructVariant::serialize_field(&'static str)
}

impl ser::SerializeMap for FiniteOnly {
    type Ok = Found;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(*self).map(drop)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(*self).map(drop)
    }

    fn end(self) -> Result<Found, Error> {
        Ok(Found::Something)
    }
}
