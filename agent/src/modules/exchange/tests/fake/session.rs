//! Sessions with what goes wrong in them: refusals, delays, answers that are lost.

use std::time::Duration;

use causeway_protocol::clixml::Object;
use causeway_protocol::cmdlet::{Cmdlet, Completed};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::cmdlets::record;
use super::{Fake, State, Trouble};
use crate::directory::Net;
use crate::exchange::{Exchange, ExchangeError, ServerFacts, Session, Urgency};

impl Exchange for Fake {
    fn open(&self, _: Net, _: Urgency) -> BoxFuture<'_, Result<Box<dyn Session>, ExchangeError>> {
        Box::pin(async move {
            let mut state = self.state();
            if let Some(error) = state.take_session_trouble("open") {
                return Err(error);
            }
            if state.sessions >= state.sessions_max {
                let detail = "MaxConcurrency".to_owned();
                return Err(ExchangeError::Throttled { detail, retry_after: None });
            }
            state.sessions += 1;
            drop(state);
            Ok(Box::new(FakeSession { fake: self.clone(), open: true }) as Box<dyn Session>)
        })
    }
}

impl State {
    fn take_session_trouble(&mut self, name: &str) -> Option<ExchangeError> {
        let detail = "as the test wants".to_owned();
        let error = match self.trouble.front()? {
            (at, _) if name != at => return None,
            (_, Trouble::Unreachable) => ExchangeError::Unreachable { detail },
            (_, Trouble::Credentials) => ExchangeError::Credentials { detail },
            (_, Trouble::Forbidden) => ExchangeError::Forbidden { detail },
            (_, Trouble::Throttled(secs)) => {
                ExchangeError::Throttled { detail, retry_after: Some(Duration::from_secs(*secs)) }
            }
            _ => return None,
        };
        self.trouble.pop_front();
        Some(error)
    }
}

struct FakeSession {
    fake: Fake,
    open: bool,
}

impl Drop for FakeSession {
    fn drop(&mut self) {
        if self.open {
            let mut state = self.fake.state();
            state.sessions = state.sessions.saturating_sub(1);
        }
    }
}

impl Session for FakeSession {
    fn run<'a>(
        &'a mut self,
        cmdlet: &'a Cmdlet,
        objects: mpsc::Sender<Object>,
    ) -> BoxFuture<'a, Result<Completed, ExchangeError>> {
        Box::pin(async move {
            let wait = {
                let mut state = self.fake.state();
                match &mut state.dies_after {
                    Some(0) => None,
                    Some(left) => {
                        *left -= 1;
                        Some(state.delay)
                    }
                    None => Some(state.delay),
                }
            };
            match wait {
                None => std::future::pending::<()>().await,
                Some(delay) if !delay.is_zero() => tokio::time::sleep(delay).await,
                Some(_) => tokio::task::yield_now().await,
            }
            let (answer, completed, lost) = self.fake.state().perform(cmdlet)?;
            for object in answer {
                if objects.send(object).await.is_err() {
                    return Err(ExchangeError::Stopped);
                }
            }
            if lost {
                return Err(ExchangeError::Unreachable { detail: "the answer was lost".to_owned() });
            }
            Ok(completed)
        })
    }

    fn server(&self) -> ServerFacts {
        ServerFacts { host: "ex1.acme.example".to_owned(), online: false }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

impl State {
    fn perform(&mut self, cmdlet: &Cmdlet) -> Result<(Vec<Object>, Completed, bool), ExchangeError> {
        let shown: Vec<String> = cmdlet
            .parameters
            .iter()
            .map(|(name, value)| format!(" -{name} {}", value.text().unwrap_or("@{...}".into())))
            .collect();
        self.log.push(format!("{}{}", cmdlet.name, shown.concat()));
        if let Some(mut before) = self.before_cmdlet.take() {
            before(&mut self.phones, &mut self.mailboxes, &cmdlet.name);
            self.before_cmdlet = Some(before);
        }
        if let Some(error) = self.take_session_trouble(&cmdlet.name) {
            return Err(error);
        }
        let trouble = match self.trouble.front() {
            Some((at, _)) if cmdlet.name == *at => self.trouble.pop_front().map(|it| it.1),
            _ => None,
        };
        let mut completed = Completed::default();
        if let Some(Trouble::Fails(reason)) = trouble {
            completed.failure = Some(record(reason));
            return Ok((Vec::new(), completed, false));
        }
        if let Some(Trouble::Partly(reason)) = &trouble {
            completed.errors.push(record(reason));
        }
        let listing = cmdlet.parameter("ResultSize").is_some() && cmdlet.name.ends_with("Device");
        if listing && self.truncate_at.is_some() {
            completed.warnings.push("There are more results; use the ResultSize parameter".to_owned());
        }
        let lost = matches!(trouble, Some(Trouble::AnswerLost));
        match self.answer(cmdlet) {
            Ok(objects) => Ok((objects, completed, lost)),
            Err(record) => {
                completed.failure = Some(record);
                Ok((Vec::new(), completed, lost))
            }
        }
    }
}
