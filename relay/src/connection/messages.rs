//! App messages of one connection: read one by one; and those for it, which wait here until it takes them.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parlor_transport::error::{Coded, Refusal};
use parlor_transport::quic::{Ended, MessageReceiver, RecvError};
use parlor_transport::wire::control::StreamKind;
use tokio::sync::Notify;

use super::Connection;
use crate::lobby::outbox::{Outbox, Put};
use crate::lock;

/// Answers to one app message: that it was passed on, or why not.
const ANSWERS_PER_MESSAGE: usize = 2;

/// What waits for one connection.
#[derive(Default)]
pub(crate) struct Messages {
    outbox: Mutex<Outbox>,
    notify: Notify,
}

impl Messages {
    /// Takes a message for the connection, if there is room.
    pub(crate) fn put(&self, message: Bytes, lossy: bool) -> Put {
        let put = lock(&self.outbox).put(message, lossy);
        self.notify.notify_one();
        put
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        lock(&self.outbox).bytes()
    }

    async fn next(&self) -> Bytes {
        loop {
            // Not in the loop's condition, where the lock would be held while waiting.
            let message = lock(&self.outbox).take();
            match message {
                Some(message) => return message,
                None => self.notify.notified().await,
            }
        }
    }
}

/// Reads what the client says to others until it stops or breaks a rule.
pub(super) async fn read(connection: Arc<Connection>, mut receiver: MessageReceiver) {
    loop {
        // As with requests: a client that says more than it reads answers waits.
        if connection.mail.reserve_many(ANSWERS_PER_MESSAGE).await.is_err() {
            return;
        }
        match receiver.recv().await {
            Ok(Some(message)) => connection.hub.handle_app_message(connection.id, message),
            Ok(None) => return,
            Err(RecvError::Wire(error)) => {
                let text = format!("an app message cannot be read: {error}; send what the protocol allows");
                return connection.hang_up(&Refusal::new(error.code(), text));
            }
            Err(RecvError::Ended(ended)) => return connection.give_up(&ended),
        }
    }
}

/// Sends what others say to the client, on a QUIC stream that is opened with the first message.
pub(super) async fn write(connection: Arc<Connection>) {
    if let Err(ended) = send(&connection).await {
        connection.give_up(&ended);
    }
}

async fn send(connection: &Connection) -> Result<(), Ended> {
    let mut message = connection.messages.next().await;
    let mut sender = connection.session.open_messages(StreamKind::AppMessages).await?;
    loop {
        sender.send_encoded(message).await?;
        message = connection.messages.next().await;
    }
}
