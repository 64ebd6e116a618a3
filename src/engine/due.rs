//! When a connection is flushed: at once, or with those who wait for that.
//!
//! It may stand in both lists, since what somebody says who says little leaves at once though much else waits
//! for the same reader. It stands in each at most once, and is not looked for there once it was flushed. All
//! in one byte, since every connection has one.

/// How it stands in the two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// In none: nothing is to be flushed.
    Never,
    /// Among those who wait, and was flushed before its time came.
    Done,
    /// Among those who wait.
    Later,
    /// Among those who are flushed before anything else is done.
    Now,
    /// In both.
    NowAndLater,
}

impl Due {
    /// It is to be flushed at once. Whether it has to be put into the list of those who are.
    pub(super) fn hurry(&mut self) -> bool {
        let (due, is_new) = match self {
            Due::Never => (Due::Now, true),
            Due::Done | Due::Later => (Due::NowAndLater, true),
            Due::Now | Due::NowAndLater => return false,
        };
        *self = due;
        is_new
    }

    /// It is to be flushed later, and not at once. Whether it has to be put behind those who wait for that.
    pub(super) fn put_off(&mut self) -> bool {
        let is_new = matches!(self, Due::Never | Due::Now);
        *self = Due::Later;
        is_new
    }

    /// It was taken out of the list of those who wait.
    pub(super) fn take_up(&mut self) {
        *self = match self {
            Due::Never | Due::Done => Due::Never,
            Due::Later | Due::Now | Due::NowAndLater => Due::Now,
        };
    }

    /// It was flushed.
    pub(super) fn flushed(&mut self) {
        *self = match self {
            Due::Never | Due::Now => Due::Never,
            Due::Done | Due::Later | Due::NowAndLater => Due::Done,
        };
    }

    /// Whether it is to be flushed, and was not since that was said.
    pub(super) fn is_open(self) -> bool {
        !matches!(self, Due::Never | Due::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_in_each_list_at_most_once_and_is_flushed_once() {
        let mut due = Due::Never;
        assert_eq!((due.put_off(), due.put_off()), (true, false));
        assert_eq!((due.hurry(), due.hurry(), due.put_off()), (true, false, false));
        assert_eq!((due.hurry(), due.is_open()), (true, true));
        due.flushed();
        assert_eq!((due, due.is_open()), (Due::Done, false));
        assert!(!due.put_off(), "it stands there still");
        due.flushed();
        due.take_up();
        assert_eq!((due, due.is_open()), (Due::Never, false));
        assert_eq!((due.hurry(), due.put_off()), (true, true));
        due.take_up();
        assert!(due.is_open(), "its time has come");
        due.flushed();
        assert_eq!(due, Due::Never);
    }
}
