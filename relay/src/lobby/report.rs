//! Telling what happened to whom it may concern outside the room: the app's server.

use super::{Lobby, Output};
use crate::lock;
use crate::room::index::{Change, Committed, RoomKey};
use crate::webhook::{Happening, What};

impl Lobby {
    /// From now on what happens is told in [`Output::Happened`].
    pub fn report_happenings(&mut self) {
        self.is_reporting = true;
    }

    /// A change has been applied to its room, and to nothing else yet.
    pub(super) fn report(&mut self, committed: &Committed) {
        if !self.is_reporting {
            return;
        }
        let Committed { room: key, epoch, change, .. } = committed;
        let Some(live) = self.rooms.get(key) else { return };
        let (users, unseen) = {
            let room = lock(&live.room);
            (room.roster().len(), room.roster().unseen())
        };
        // Positions do not tell: an unseen user leaves them where they are.
        let is_first = matches!(change, Change::UserJoined { .. }) && users + unseen == 1;
        let what = match change.clone() {
            Change::UserJoined { user, .. } => What::UserJoined { user, users },
            Change::UserLeft { user, reason, .. } => What::UserLeft { user, reason, users },
            Change::StreamAdded { stream, .. } => What::StreamAdded(stream),
            Change::StreamRemoved { stream, reason, .. } => {
                let published = live.publications.get(&stream);
                let user = published.map(|published| published.publication.info().user.clone());
                What::StreamRemoved { stream, user, reason }
            }
            // What is attached to the room and its streams is the users' own business.
            Change::TrackState { .. } | Change::StreamInfo { .. } | Change::RoomInfo { .. } => return,
        };
        if is_first {
            self.tell(key, *epoch, What::RoomOpened);
        }
        self.tell(key, *epoch, what);
    }

    /// A room is over.
    pub(super) fn end_room(&mut self, key: &RoomKey) {
        if let Some(live) = self.rooms.remove(key).filter(|_| self.is_reporting) {
            let epoch = lock(&live.room).epoch();
            self.tell(key, epoch, What::RoomClosed);
        }
        self.outputs.push_back(Output::RoomEnded(key.clone()));
    }

    fn tell(&mut self, room: &RoomKey, epoch: u64, what: What) {
        self.outputs.push_back(Output::Happened(Happening { room: room.clone(), epoch, what }));
    }
}
