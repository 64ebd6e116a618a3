//! A hand on the disk's sync of a real gateway.
//!
//! A few lines of C, put before libc's own: while two named pipes are there, a sync waits in between. Each
//! end of a pipe waits for the other, so the test knows when the sync has begun, and nobody waits for a
//! clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;

use crate::stand::HANG;

/// The hand.
pub(crate) struct Sync {
    library: PathBuf,
    pipe: PathBuf,
}

impl Sync {
    /// Compiles it into this folder.
    pub(crate) fn within(folder: &Path) -> Sync {
        let (source, library) = (folder.join("sync.c"), folder.join("sync.so"));
        fs::write(&source, SOURCE).unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(compile.status().unwrap().success(), "the C compiler that built SQLite builds this");
        Sync { library, pipe: folder.join("sync") }
    }

    /// What the gateway is started under.
    pub(crate) fn wrapper(&self) -> [String; 3] {
        let pipe = self.pipe.display();
        ["env".into(), format!("LD_PRELOAD={}", self.library.display()), format!("SYNC_PIPE={pipe}")]
    }

    /// From now on the next sync waits.
    pub(crate) fn hold(&self) {
        // The first is looked for first, so it is made last.
        for end in [self.end("proceed"), self.end("arrived")] {
            assert!(Command::new("mkfifo").arg(end).status().unwrap().success());
        }
    }

    /// Waits until a sync has begun.
    pub(crate) fn wait_begun(&self) {
        let (tell, told) = channel();
        let arrived = self.end("arrived");
        std::thread::spawn(move || tell.send(fs::File::open(arrived).map(drop)));
        told.recv_timeout(HANG).expect("a sync begins").unwrap();
    }

    /// Lets it go on, and every later one.
    pub(crate) fn release(&self) {
        fs::remove_file(self.end("arrived")).unwrap();
        let proceed = self.end("proceed");
        drop(fs::OpenOptions::new().write(true).open(&proceed).unwrap());
        fs::remove_file(proceed).unwrap();
    }

    fn end(&self, name: &str) -> PathBuf {
        self.pipe.with_extension(name)
    }
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void pass(const char *end, int flags) {
    char path[4096];
    snprintf(path, sizeof path, "%s.%s", getenv("SYNC_PIPE"), end);
    int pipe = open(path, flags);
    if (pipe >= 0) close(pipe);
    else if (flags == O_WRONLY) return;
    if (flags == O_WRONLY) pass("proceed", O_RDONLY);
}

#define HELD(name) \
    int name(int file) { \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        pass("arrived", O_WRONLY); \
        return real(file); \
    }

HELD(fsync)
HELD(fdatasync)
"#;
