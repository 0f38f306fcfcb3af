//! What all bodies that are being read, and those of requests under way, may take of memory together.

use mini_api::{Reason, Status};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Of each body this much is free: most bodies are smaller and cost nothing to count.
pub(crate) const FREE: usize = 64 * 1024;
/// What lies above that, of everybody together, and of one user: whoever sends much leaves room for others.
const ALL: usize = 96 * 1024 * 1024;
const ONE: usize = ALL / 4;

/// The ledger.
#[derive(Default)]
pub(crate) struct Bodies(Mutex<HashMap<String, usize>>);

/// What one request has taken; it is given back at the end.
pub(crate) struct Charge {
    bodies: Arc<Bodies>,
    user: String,
    taken: usize,
}

impl Charge {
    pub(crate) fn new(bodies: &Arc<Bodies>, user: &str) -> Self {
        Self { bodies: bodies.clone(), user: user.to_owned(), taken: 0 }
    }

    /// Makes this charge one for a body of `length` bytes.
    ///
    /// # Errors
    /// 429 where that is too much just now.
    pub(crate) fn grow(&mut self, length: usize) -> Result<(), Status> {
        let more = length.saturating_sub(FREE).saturating_sub(self.taken);
        if more == 0 {
            return Ok(());
        }
        let mut bodies = self.bodies.0.lock();
        let all: usize = bodies.values().sum();
        let own = bodies.get(&self.user).copied().unwrap_or_default();
        if all + more > ALL || own + more > ONE {
            let mut status =
                Status::new(Reason::TooManyRequests, "too many large requests are under way, please try again later");
            status.retry_after_seconds = Some(1);
            return Err(status);
        }
        bodies.insert(self.user.clone(), own + more);
        self.taken += more;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.taken == 0 {
            return;
        }
        let mut bodies = self.bodies.0.lock();
        if let Some(own) = bodies.get_mut(&self.user) {
            *own = own.saturating_sub(self.taken);
            if *own == 0 {
                bodies.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others() {
        let bodies = Arc::<Bodies>::default();
        let body = 3 * 1024 * 1024;
        let take = |user: &str| {
            let mut charge = Charge::new(&bodies, user);
            charge.grow(FREE).and_then(|()| charge.grow(body)).map(|()| charge)
        };
        let held: Vec<_> = (0..100).map_while(|_| take("a").ok()).collect();
        assert_eq!(held.len(), ONE / (body - FREE));
        let Err(refused) = take("a") else { panic!("more than a user's share") };
        assert_eq!((refused.code, refused.retry_after_seconds), (429, Some(1)));
        // Small bodies are never counted.
        assert!(Charge::new(&bodies, "a").grow(FREE).is_ok());
        let others: Vec<_> = (0..100).map_while(|n| take(&format!("b{n}")).ok()).collect();
        assert!(others.len() + held.len() <= ALL / (body - FREE) && others.len() > 20, "{}", others.len());
        drop(held);
        assert!(take("a").is_ok());
        drop(others);
        assert!(bodies.0.lock().is_empty());
    }
}
