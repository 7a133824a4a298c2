//! A forge as it is asked: through its copies first, and with its refusals told apart.

use serde::de::DeserializeOwned;

use super::answer::{Answer, Ask, BODY_MAX, NoAnswer, Transport};
use super::base::Base;
use super::cache::{Cache, Copy, STAND_IN_MS};
use super::error::ForgeError;
use protocol::class::Class;

/// How long a copy of an issue, a pull request or a difference is fresh, milliseconds: an hour.
pub(super) const ITEM_FRESH_MS: i64 = 3600 * 1000;
/// How long a copy of a list is fresh, milliseconds: five minutes.
pub(super) const LIST_FRESH_MS: i64 = 5 * 60 * 1000;
/// The form of everything but differences.
const JSON: &str = "application/vnd.github+json";

/// One forge.
#[derive(Debug)]
pub(super) struct Forge {
    base: Base,
    transport: Box<dyn Transport>,
    cache: Option<Cache>,
    now_ms: i64,
    /// What the operator should know.
    pub(super) notes: Vec<String>,
}

impl Forge {
    pub(super) fn new(
        base: Base,
        transport: Box<dyn Transport>,
        cache: Option<Cache>,
        now_ms: i64,
        notes: Vec<String>,
    ) -> Self {
        Self {
            base,
            transport,
            cache,
            now_ms,
            notes,
        }
    }

    /// What is at this path, as JSON. `what` is asked for, in words.
    ///
    /// # Errors
    /// [`ForgeError`]
    pub(super) fn json<T: DeserializeOwned>(
        &mut self,
        path: &str,
        fresh_ms: i64,
        what: &str,
    ) -> Result<T, ForgeError> {
        self.read(path, JSON, fresh_ms, what, |body| {
            serde_json::from_str(body).map_err(|error| error.to_string())
        })
    }

    /// What is at this path, as text of this form; `None` where the forge has no such form of it.
    ///
    /// # Errors
    /// [`ForgeError`]
    pub(super) fn text(
        &mut self,
        path: &str,
        accept: &str,
        what: &str,
    ) -> Result<Option<String>, ForgeError> {
        let read = self.read(
            path,
            accept,
            ITEM_FRESH_MS,
            what,
            |body| Ok(body.to_owned()),
        );
        match read {
            Ok(text) => Ok(Some(text)),
            // What it says of a difference that is too large.
            Err(ForgeError::Trouble { status: 406, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read<T>(
        &mut self,
        path: &str,
        accept: &str,
        fresh_ms: i64,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ForgeError> {
        let url = format!("{}{path}", self.base.api);
        let copy = self.cache.as_ref().and_then(|it| it.find(&url, accept));
        let known = copy.and_then(|copy| Some((parse(&copy.body).ok()?, copy)));
        let Some((value, copy)) = known else {
            let copy = Copy::new(&url, accept, None, self.now_ms);
            return self.ask(path, copy, what, parse);
        };
        if copy.age_ms(self.now_ms) < fresh_ms {
            return Ok(value);
        }
        let age_ms = copy.age_ms(self.now_ms);
        match self.ask_again(path, copy, what, parse) {
            Ok(None) => Ok(value),
            Ok(Some(new)) => Ok(new),
            Err(error) if error.class() == Class::Network && age_ms < STAND_IN_MS => {
                let minutes = age_ms / 60_000;
                self.notes
                    .push(format!("{error}; a copy of {minutes} min ago is used"));
                Ok(value)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks with the mark of a copy; `None` where that is how things still stand.
    fn ask_again<T>(
        &mut self,
        path: &str,
        mut copy: Copy,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ForgeError> {
        let answer = self.answer(path, &copy, None, what)?;
        copy.seen_ms = self.now_ms;
        if answer.status == 304 {
            self.keep(&copy);
            return Ok(None);
        }
        self.take(path, copy, answer, parse).map(Some)
    }

    fn ask<T>(
        &mut self,
        path: &str,
        copy: Copy,
        what: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ForgeError> {
        let answer = self.answer(path, &copy, None, what)?;
        self.take(path, copy, answer, parse)
    }

    /// Posts this there, and gives what the forge says that it made.
    ///
    /// # Errors
    /// [`ForgeError`]; it may have been made nevertheless, where the answer did not come.
    pub(super) fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &str,
        what: &str,
    ) -> Result<T, ForgeError> {
        let url = format!("{}{path}", self.base.api);
        let none = Copy::new(&url, JSON, None, self.now_ms);
        let answer = self.answer(path, &none, Some(body), what)?;
        serde_json::from_slice(&answer.body).map_err(|error| ForgeError::Garbled {
            host: self.base.host.clone(),
            path: path.to_owned(),
            why: error.to_string(),
        })
    }

    /// Keeps what came, once it has proven to be what was asked for.
    fn take<T>(
        &mut self,
        path: &str,
        mut copy: Copy,
        answer: Answer,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ForgeError> {
        copy.etag = answer.header("etag").map(str::to_owned);
        copy.body = String::from_utf8_lossy(&answer.body).into_owned();
        let value = parse(&copy.body).map_err(|why| ForgeError::Garbled {
            host: self.base.host.clone(),
            path: path.to_owned(),
            why,
        })?;
        self.keep(&copy);
        Ok(value)
    }

    fn keep(&mut self, copy: &Copy) {
        let kept = self.cache.as_ref().map_or(Ok(()), |it| it.keep(copy));
        if let Err(error) = kept {
            self.notes.push(format!("nothing more is cached: {error}"));
            self.cache = None;
        }
    }

    /// The answer, if it is one that brings something.
    fn answer(
        &self,
        path: &str,
        copy: &Copy,
        body: Option<&str>,
        what: &str,
    ) -> Result<Answer, ForgeError> {
        let Base { host, who, .. } = &self.base;
        let (host, path) = (host.clone(), path.to_owned());
        let ask = Ask {
            path: &path,
            accept: copy.accept(),
            etag: copy.etag.as_deref(),
            body,
        };
        let answer = match self.transport.send(ask) {
            Ok(answer) => answer,
            Err(NoAnswer::Unreached(why)) => return Err(ForgeError::Offline { host, why }),
            Err(NoAnswer::TooLarge) => {
                let max = BODY_MAX;
                return Err(ForgeError::TooLarge { host, path, max });
            }
            Err(NoAnswer::NotRun(error)) => return Err(error),
        };
        if let Some(until_ms) = answer.limit(self.now_ms) {
            let wait = until_ms.map(|until| until.saturating_sub(self.now_ms).max(0));
            return Err(ForgeError::Limited {
                host,
                until_ms,
                wait_min: wait.map(|wait| wait / 60_000 + 1),
                has_token: self.base.has_token(),
            });
        }
        let who = who.clone();
        match answer.status {
            200 => Ok(answer),
            201 if body.is_some() => Ok(answer),
            304 if copy.etag.is_some() => Ok(answer),
            401 | 403 => Err(ForgeError::Denied {
                host,
                who,
                said: answer.said(),
            }),
            404 | 410 => Err(ForgeError::Missing {
                host,
                what: what.to_owned(),
                who,
            }),
            status => Err(ForgeError::Trouble { host, status, path }),
        }
    }
}
