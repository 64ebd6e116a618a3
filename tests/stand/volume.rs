//! A small disk of its own, that can be really full.
//!
//! A tmpfs in a mount namespace that no one else sees: root makes one, and so does anybody else in a user
//! namespace. A process holds it over every end of the gateway, which comes in by nsenter; once the test is
//! gone, so are the holder and the disk.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A disk that is mounted.
pub struct Volume {
    holder: Child,
    /// Where the test finds it: only the holder and who comes in to it see it at its place.
    inside: PathBuf,
    enter: &'static [&'static str],
}

impl Volume {
    /// Mounts a disk of so many megabytes at this folder.
    pub fn mount(folder: &Path, megabytes: u64) -> Volume {
        fs::create_dir_all(folder).unwrap();
        // Whoever may not mount may where he is root of his own.
        let volume =
            Volume::hold(folder, megabytes, &["--mount"], &["--mount"], Stdio::null()).or_else(|| {
                let enter = &["--user", "--preserve-credentials", "--mount"];
                Volume::hold(
                    folder,
                    megabytes,
                    &["--user", "--map-root-user", "--mount"],
                    enter,
                    Stdio::inherit(),
                )
            });
        volume.expect(
            "a small disk needs root, or user namespaces for everybody (sysctl kernel.unprivileged_userns_clone=1 \
             kernel.apparmor_restrict_unprivileged_userns=0)",
        )
    }

    /// Mounts it in namespaces that are made with these options, and entered with those.
    fn hold(
        folder: &Path,
        megabytes: u64,
        make: &[&str],
        enter: &'static [&'static str],
        complaints: Stdio,
    ) -> Option<Volume> {
        // It ends with the pipe that it reads.
        let script = "mount -t tmpfs -o \"size=$2,mode=700\" tmpfs \"$1\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(make)
            .args(["sh", "-c", script, "sh"])
            .arg(folder)
            .arg(format!("{megabytes}m"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .process_group(0)
            .spawn()
            .expect("unshare is part of every Debian");
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let inside = Path::new("/proc").join(holder.id().to_string()).join("root");
        let inside = inside.join(folder.strip_prefix("/").expect("an absolute path"));
        let volume = Volume { holder, inside, enter };
        (said == "mounted\n").then_some(volume)
    }

    /// What a program is started under that is to see it.
    pub fn wrapper(&self) -> Vec<String> {
        let target = ["nsenter".into(), "--target".into(), self.holder.id().to_string()];
        target.into_iter().chain(self.enter.iter().map(|option| (*option).to_owned())).collect()
    }

    /// Another tenant takes all but so many bytes; what he has he keeps.
    pub fn fill(&self, leave: u64) {
        let path = self.inside.join("another-tenant");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for step in [1 << 20, 1 << 16, PAGE] {
            let bytes = vec![0; step];
            while self.free() >= leave + step as u64 || leave == 0 {
                match file.write(&bytes) {
                    // The rest of what there is.
                    Ok(written) if written < step => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
    }

    /// The other tenant leaves.
    pub fn empty(&self) {
        fs::remove_file(self.inside.join("another-tenant")).unwrap();
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.inside).unwrap();
        disk.f_bavail * disk.f_frsize
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What a disk gives at least.
const PAGE: usize = 4_096;
