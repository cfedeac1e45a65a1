//! A wrapper's QEMU ends with its parent where the binary says that it can; the binary is asked, once.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ratite::MachineConfig;
use ratite_tests::scenario::Stage;
use ratite_tests::scenario::fake_qemu;
use ratite_tests::scenario::play;

/// A QEMU that knows the option, counts how often it is asked, and otherwise is the fake one.
fn knowing(stage: &Stage) -> MachineConfig {
    let path = stage.path("qemu");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -help ] && {{ echo '-run-with exit-with-parent=on|off'; echo asked >> {}; exit; }}\nexec {} \"$@\"\n",
        stage.path("asked").display(),
        fake_qemu().display(),
    );
    fs::write(&path, script).expect("a folder of our own");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of our own");
    MachineConfig::new(path).base_folder(stage.base())
}

async fn uses_it(config: &MachineConfig) -> bool {
    let machine = config.launch().await.expect("it starts");
    machine.command_line().to_string().contains("-run-with 'exit-with-parent=on'")
}

#[test]
fn a_binary_that_has_the_option_gets_it_under_a_wrapper() {
    play(async |stage| {
        let wrapped = knowing(stage).wrapper(["env", "A=b"]);

        assert!(uses_it(&wrapped).await);
        assert!(uses_it(&wrapped).await);

        assert_eq!(fs::read_to_string(stage.path("asked")).unwrap(), "asked\n", "asked once");
        assert!(!uses_it(&wrapped.clone().without_exit_with_parent()).await);
    });
}

#[test]
fn a_binary_that_has_it_not_and_one_without_a_wrapper_do_not_get_it() {
    play(async |stage| {
        assert!(!uses_it(&stage.fake(&[]).wrapper(["env", "A=b"])).await);
        // What ratite itself starts ends with it anyway, so nothing is asked.
        assert!(!uses_it(&knowing(stage)).await);
        assert!(!stage.path("asked").exists());
    });
}
