//! A serial line between the test and the gateway: two ptys and socat between them.
//!
//! The gateway's end is a link that stays in its place, as under `/dev/serial/by-id`. Dropping the wire
//! unplugs it; a new one in the same folder is plugged in at the same place.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait_for;

/// A line that is plugged in.
pub struct SerialWire {
    socat: Child,
    /// The device's end: its name, and open for what the device says.
    near: (PathBuf, File),
    /// The gateway's end.
    pub device: PathBuf,
}

impl SerialWire {
    /// Where the gateway's end of a folder's wire is, plugged in or not.
    pub fn device(folder: &Path) -> PathBuf {
        folder.join("serial-device")
    }

    /// Plugs it in.
    pub fn plug(folder: &Path) -> SerialWire {
        let (near, device) = (folder.join("serial-near"), SerialWire::device(folder));
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let socat = Command::new("socat")
            .args([end(&near), end(&device)])
            .process_group(0)
            .stderr(Stdio::null())
            .spawn()
            .expect("socat is installed by tests/setup");
        let file = wait_for("the serial line", || {
            OpenOptions::new().write(true).open(&near).ok().filter(|_| device.exists())
        });
        SerialWire { socat, near: (near, file), device }
    }

    /// The device says this.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.near.1.write_all(bytes.as_ref()).expect("the line is plugged in");
    }

    /// The device's end, for who says something from elsewhere.
    pub fn near(&self) -> File {
        self.near.1.try_clone().unwrap()
    }
}

impl Drop for SerialWire {
    fn drop(&mut self) {
        let _ = self.socat.kill();
        let _ = self.socat.wait();
        let _ = fs::remove_file(&self.near.0);
        let _ = fs::remove_file(&self.device);
    }
}
