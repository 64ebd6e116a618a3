//! A hand on the disk of a real program: syncs are counted, may be made slow, and the disk may be full.
//!
//! A few lines of C, put before libc's own. They look at files in which the test says what is wanted, so
//! that it can be changed while the program runs. A slow sync stands for an SD card.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The hand.
pub struct Disk {
    library: PathBuf,
    control: PathBuf,
}

impl Disk {
    /// Compiles it into this folder.
    pub fn within(folder: &Path) -> Disk {
        let (source, library) = (folder.join("disk.c"), folder.join("disk.so"));
        fs::write(&source, SOURCE).unwrap();
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        assert!(compile.status().unwrap().success(), "the C compiler that built SQLite builds this");
        let disk = Disk { library, control: folder.join("disk") };
        disk.say("delay", "0");
        disk
    }

    /// What a program is started under.
    pub fn wrapper(&self) -> [String; 3] {
        let control = self.control.display();
        ["env".into(), format!("LD_PRELOAD={}", self.library.display()), format!("DISK={control}")]
    }

    /// From now on every sync takes so long at least.
    pub fn slow_down(&self, delay: Duration) {
        self.say("delay", &delay.as_micros().to_string());
    }

    /// From now on the disk is full for the database's files.
    pub fn fill(&self) {
        self.say("full", "");
    }

    /// There is space again.
    pub fn empty(&self) {
        fs::remove_file(self.control.with_extension("full")).unwrap();
    }

    /// Syncs so far.
    pub fn syncs(&self) -> u64 {
        fs::metadata(self.control.with_extension("syncs")).map_or(0, |file| file.len())
    }

    fn say(&self, word: &str, text: &str) {
        let (path, fresh) = (self.control.with_extension(word), self.control.with_extension("fresh"));
        fs::write(&fresh, text).unwrap();
        // Never half a number.
        fs::rename(fresh, path).unwrap();
    }
}

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const char *control(char *path, const char *word) {
    snprintf(path, 4096, "%s.%s", getenv("DISK"), word);
    return path;
}

static void slow_and_counted(void) {
    char path[4096], text[32] = "";
    int file = open(control(path, "syncs"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file >= 0) { if (write(file, "", 1) < 0) abort(); close(file); }
    file = open(control(path, "delay"), O_RDONLY);
    if (file >= 0) { if (read(file, text, sizeof text - 1) < 0) abort(); close(file); }
    long micros = atol(text);
    if (micros > 0) usleep(micros);
}

static int is_full(int file) {
    char path[4096], name[64];
    if (access(control(path, "full"), F_OK) != 0) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return strstr(path, "tidegate.db") != NULL;
}

#define SYNC(name) \
    int name(int file) { \
        int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, #name); \
        slow_and_counted(); \
        return real(file); \
    }

#define WRITE(name) \
    ssize_t name(int file, const void *bytes, size_t length, off64_t at) { \
        ssize_t (*real)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, #name); \
        if (is_full(file)) { errno = ENOSPC; return -1; } \
        return real(file, bytes, length, at); \
    }

SYNC(fsync)
SYNC(fdatasync)
WRITE(pwrite)
WRITE(pwrite64)
"#;
