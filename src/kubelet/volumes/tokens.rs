//! The service account tokens of one pod, and when each has to be renewed.
//!
//! By the wall clock, as their expiry is: a machine that slept finds them due when it wakes. Invariant: a token is renewed
//! at 80 % of its life or after a day; one that cannot be renewed serves on while it is good, and is tried again soon, not
//! at once.

use crate::cluster::{Error, Token};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;

const RETRY: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Kept {
    token: Token,
    renew: Timestamp,
}

/// Tokens by volume and path.
pub(crate) struct Tokens {
    kept: Mutex<HashMap<(String, String), Kept>>,
    clock: fn() -> Timestamp,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { kept: Mutex::default(), clock: Timestamp::now }
    }
}

impl Tokens {
    /// The token for a place, from `ask` when there is none or it is due.
    pub(super) async fn get(
        &self,
        volume: &str,
        path: &str,
        ask: impl Future<Output = Result<Token, Error>>,
    ) -> Result<String, Error> {
        let key = (volume.to_owned(), path.to_owned());
        let asked = (self.clock)();
        if let Some(kept) = self.kept.lock().get(&key).filter(|kept| kept.renew > asked) {
            return Ok(kept.token.token.clone());
        }
        match ask.await {
            Ok(token) => {
                let life = Duration::try_from(token.expires.duration_since(asked)).unwrap_or_default();
                let renew = asked + (life * 4 / 5).min(DAY);
                let text = token.token.clone();
                self.kept.lock().insert(key, Kept { token, renew });
                Ok(text)
            }
            Err(error) => match self.kept.lock().get_mut(&key) {
                Some(kept) => {
                    kept.renew = asked + RETRY;
                    if kept.token.expires > asked { Ok(kept.token.token.clone()) } else { Err(error) }
                }
                None => Err(error),
            },
        }
    }

    /// How long until the next one has to be renewed.
    pub(crate) fn next(&self) -> Option<Duration> {
        let first = self.kept.lock().values().map(|kept| kept.renew).min()?;
        let left = Duration::try_from(first.duration_since((self.clock)())).unwrap_or_default();
        // Due although it has just been looked at: something stands in its way.
        Some(if left.is_zero() { RETRY } else { left })
    }

    pub(crate) fn due(&self) -> bool {
        let now = (self.clock)();
        self.kept.lock().values().any(|kept| kept.renew <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! { static NOW: Cell<Timestamp> = const { Cell::new(Timestamp::UNIX_EPOCH) } }

    fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    async fn get(tokens: &Tokens, asked: &Cell<u32>, works: bool) -> Result<String, Error> {
        let ask = async {
            asked.set(asked.get() + 1);
            let token = format!("token {}", asked.get());
            let expires = NOW.get() + Duration::from_secs(600);
            if works { Ok(Token { token, expires }) } else { Err(Error::Other("no".into())) }
        };
        tokens.get("v", "token", ask).await
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn a_token_of_ten_minutes_is_renewed_in_time_and_not_more_often() {
        run(async {
            let tokens = Tokens { clock: || NOW.get(), ..Tokens::default() };
            let asked = Cell::new(0);
            assert_eq!(tokens.next(), None);
            get(&tokens, &asked, true).await.unwrap();
            let mut looks = 0;
            let end = NOW.get() + Duration::from_secs(3600);
            while NOW.get() < end {
                assert!(!tokens.due());
                pass(tokens.next().unwrap());
                assert!(tokens.due());
                get(&tokens, &asked, true).await.unwrap();
                looks += 1;
            }
            assert_eq!((looks, asked.get()), (8, 9), "each 480 s");
            pass(Duration::from_secs(100));
            assert_eq!(get(&tokens, &asked, true).await.unwrap(), "token 9");
        });
    }

    #[test]
    fn one_that_cannot_be_renewed_serves_until_it_expires() {
        run(async {
            let tokens = Tokens { clock: || NOW.get(), ..Tokens::default() };
            let asked = Cell::new(0);
            get(&tokens, &asked, true).await.unwrap();
            pass(Duration::from_secs(480));
            let mut looks = 0;
            while get(&tokens, &asked, false).await.is_ok() {
                pass(tokens.next().unwrap());
                looks += 1;
            }
            assert_eq!(looks, 12, "every ten seconds of the last two minutes");
            assert_eq!(tokens.next(), Some(RETRY), "and on");
            pass(RETRY);
            get(&tokens, &asked, true).await.unwrap();
            // Something else fails before the token's turn comes: no reason to spin.
            pass(Duration::from_secs(500));
            assert_eq!(tokens.next(), Some(RETRY));
        });
    }
}
