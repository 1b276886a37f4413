//! How many requests may wait. Reads and lookups have bounds of their own: a registry that is silent to lookups stops no read.
#![forbid(unsafe_code)]

use std::collections::HashMap;

use crate::asker::ROOT;

/// Reads that may wait at a time; more are EIO. The kernel sends at most 1024 in the background, the rest are processes that wait.
pub const READS_MAX: usize = 4096;
/// Lookups that may wait at a time; more are ENOENT, which leaves the layer to the engine. Each is a process that waits.
pub const LOOKUPS_MAX: usize = 4096;
/// All users but root together leave root this much room: one of them may have thousands of user IDs to spend.
pub const LOOKUPS_MAX_OF_OTHERS: usize = LOOKUPS_MAX / 2;
/// One user: some pulls at once, each of an image of at most 127 layers.
pub const LOOKUPS_MAX_OF_USER: usize = 256;

/// What waits: a read, or the lookup of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Read,
    Lookup(u32),
}

#[derive(Default)]
pub struct Room {
    reads: usize,
    lookups: usize,
    /// Lookups of those who are not root.
    others: HashMap<u32, usize>,
    of_others: usize,
}

impl Room {
    pub fn has(&self, place: Place) -> bool {
        match place {
            Place::Read => self.reads < READS_MAX,
            Place::Lookup(ROOT) => self.lookups < LOOKUPS_MAX,
            Place::Lookup(user) => {
                self.lookups < LOOKUPS_MAX
                    && self.of_others < LOOKUPS_MAX_OF_OTHERS
                    && self.others.get(&user).is_none_or(|&own| own < LOOKUPS_MAX_OF_USER)
            }
        }
    }

    pub fn take(&mut self, place: Place) {
        match place {
            Place::Read => self.reads += 1,
            Place::Lookup(user) => {
                self.lookups += 1;
                if user != ROOT {
                    self.of_others += 1;
                    *self.others.entry(user).or_default() += 1;
                }
            }
        }
    }

    /// Gives back what was taken.
    pub fn leave(&mut self, place: Place) {
        match place {
            Place::Read => self.reads -= 1,
            Place::Lookup(user) => {
                self.lookups -= 1;
                if let Some(own) = self.others.get_mut(&user) {
                    self.of_others -= 1;
                    *own -= 1;
                    if *own == 0 {
                        self.others.remove(&user);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as long as there is room; how many that were.
    fn fill(room: &mut Room, place: Place) -> usize {
        let mut count = 0;
        while room.has(place) {
            room.take(place);
            count += 1;
        }
        count
    }

    #[test]
    fn lookups_leave_reads_their_room_others_root_its_own_and_a_user_the_others_theirs() {
        let mut room = Room::default();
        assert_eq!(fill(&mut room, Place::Lookup(1000)), LOOKUPS_MAX_OF_USER);
        assert_eq!(fill(&mut room, Place::Lookup(1001)), LOOKUPS_MAX_OF_USER);
        for user in 1002..2000 {
            fill(&mut room, Place::Lookup(user));
        }
        assert!(!room.has(Place::Lookup(2000)));
        assert_eq!(fill(&mut room, Place::Lookup(ROOT)), LOOKUPS_MAX - LOOKUPS_MAX_OF_OTHERS);
        assert_eq!(fill(&mut room, Place::Read), READS_MAX);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_nothing_is_kept_of_who_left() {
        let mut room = Room::default();
        for place in [Place::Read, Place::Lookup(ROOT), Place::Lookup(1000)] {
            let count = fill(&mut room, place);
            room.leave(place);
            assert_eq!(fill(&mut room, place), 1);
            (0..count).for_each(|_| room.leave(place));
        }
        assert_eq!((room.reads, room.lookups, room.of_others, room.others.len()), (0, 0, 0, 0));
    }
}
