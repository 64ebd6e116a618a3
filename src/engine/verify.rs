//! Passwords are compared on a thread of their own, since a comparison takes a tenth of a second.
//!
//! Questions wait in a bounded queue; when it is full the client is turned away, and tries again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{io, thread};

use bytes::Bytes;
use bytestring::ByteString;
use tracing::warn;

use super::{Input, Inputs};
use crate::auth::PasswordFile;
use crate::broker::ConnectionId;

/// A way to the thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Verifier {
    questions: SyncSender<Question>,
}

/// One password to compare.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) connection: ConnectionId,
    pub(super) username: ByteString,
    pub(super) password: Bytes,
}

impl Verifier {
    /// Starts the thread.
    pub(super) fn start(file: PasswordFile, inputs: Inputs) -> io::Result<Verifier> {
        let (questions, receiver) = sync_channel(QUESTIONS_MAX);
        thread::Builder::new()
            .name("passwords".to_owned())
            .spawn(move || answer(file, &receiver, &inputs))?;
        Ok(Verifier { questions })
    }

    /// Asks; [`Input::Verified`] is the answer. Whether there was room for the question.
    pub(super) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok()
    }
}

fn answer(mut file: PasswordFile, questions: &Receiver<Question>, inputs: &Inputs) {
    while let Ok(Question { connection, username, password }) = questions.recv() {
        if let Err(error) = file.refresh() {
            warn!("cannot {error}");
        }
        let accepted = file.verify(&username, &password);
        if inputs.send_blocking(Input::Verified { connection, accepted }).is_err() {
            return;
        }
    }
}

/// Passwords that wait to be compared, each of a client that has not been let in.
const QUESTIONS_MAX: usize = 1_024;
