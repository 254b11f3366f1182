//! A search of any size, as a stream of chunks.
//!
//! A task of its own reads ahead: while one chunk is worked on, the next is on its way, and never more than that is in
//! memory. Behind a chunk that is too large nothing is read until it is done with: two groups of everybody, one after the
//! other, would otherwise be in memory together. The consumer's pace reaches the server through the socket.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::controls;
use super::entry::Entry;
use super::error::DirectoryError;
use super::limits;
use super::message::{Answer, Control, Message, OperationResult, SearchRequest};
use super::servers::Lent;

/// Some entries of a search.
pub struct Chunk {
    /// In the server's order.
    pub items: Vec<Item>,
    /// Result of the whole search, in the last chunk.
    pub done: Option<OperationResult>,
}

/// What a search yields.
pub enum Item {
    /// An entry with its response controls (nearly always none).
    Entry(Entry, Vec<Control>),
    /// An intermediate message (RFC 4533 uses them).
    Intermediate(Option<String>, Option<Bytes>),
}

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// In pages of this size (RFC 2696).
    Pages(u32),
    /// At once; for servers that cannot page and for DirSync and syncrepl, which must not be paged.
    Whole,
}

/// A search in progress. Dropping it ends the search and closes its connection.
pub struct Chunks {
    receiver: mpsc::Receiver<Result<Chunk, DirectoryError>>,
    /// One permit each time the next chunk is asked for, which is when the one before is done with.
    asked: Arc<Semaphore>,
    reader: JoinHandle<()>,
    server: Arc<str>,
}

impl Chunks {
    /// Starts a search on a connection of its own.
    pub fn start(lent: Lent, request: SearchRequest, paging: Paging) -> Self {
        let server = lent.connection_name();
        let (sender, receiver) = mpsc::channel(1);
        let asked = Arc::new(Semaphore::new(0));
        let reader = Reader { lent, request, paging, sender, asked: asked.clone(), references: 0 };
        Self { receiver, asked, reader: tokio::spawn(reader.run()), server }
    }

    /// The next chunk; the last one has [`Chunk::done`] set, and nothing follows it. Whoever still holds the one before
    /// holds two.
    ///
    /// # Errors
    /// When the connection or the server fails, or the search ends with anything but success: what came before is then
    /// incomplete and must not be taken as evidence that something is gone.
    pub async fn next(&mut self) -> Result<Chunk, DirectoryError> {
        self.asked.add_permits(1);
        match self.receiver.recv().await {
            Some(chunk) => chunk,
            None => Err(DirectoryError::misbehaved(&self.server, "search", "the reader ended early")),
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Lent {
    fn connection_name(&self) -> Arc<str> {
        self.server().name().clone()
    }
}

struct Reader {
    lent: Lent,
    request: SearchRequest,
    paging: Paging,
    sender: mpsc::Sender<Result<Chunk, DirectoryError>>,
    asked: Arc<Semaphore>,
    references: u32,
}

/// How a page ended.
enum PageEnd {
    Last(OperationResult),
    Next(Bytes),
    /// Nobody listens any more.
    Unwanted,
}

impl Reader {
    async fn run(mut self) {
        if let Err(error) = self.pages().await {
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn pages(&mut self) -> Result<(), DirectoryError> {
        let mut cookie = Bytes::new();
        let mut empty = 0;
        let mut id = self.ask(&cookie).await?;
        loop {
            let mut gathered = Gathered::default();
            match self.page(id, &mut gathered, !cookie.is_empty()).await? {
                PageEnd::Unwanted => {
                    self.lent.abandon(id).await;
                    return Ok(());
                }
                PageEnd::Last(result) => {
                    let _ = self.sender.send(Ok(Chunk { items: gathered.items, done: Some(result) })).await;
                    return Ok(());
                }
                PageEnd::Next(next) => {
                    if gathered.total == 0 {
                        empty += 1;
                        if empty > limits::EMPTY_PAGES_MAX || next == cookie {
                            return Err(self.misbehaved("pages without entries and without end"));
                        }
                    } else {
                        empty = 0;
                    }
                    cookie = next;
                    // Before the page is handed on: the server works while we do.
                    id = self.ask(&cookie).await?;
                    if !gathered.items.is_empty() && !self.hand_on(&mut gathered).await {
                        self.lent.abandon(id).await;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks for the page behind this cookie.
    async fn ask(&mut self, cookie: &Bytes) -> Result<i32, DirectoryError> {
        let mut request = self.request.clone();
        if let Paging::Pages(size) = self.paging {
            request.controls.push(controls::paged(size, cookie, true));
        }
        self.lent.begin(&request).await
    }

    /// Reads one page to its end. `continued` says that another page came before it.
    async fn page(
        &mut self,
        id: i32,
        gathered: &mut Gathered,
        continued: bool,
    ) -> Result<PageEnd, DirectoryError> {
        loop {
            let Message { answer, controls, .. } = self.lent.next(id, limits::PAGE_WITHIN).await?;
            // Only when more comes: a page that fills a chunk is read to its end, so that the next one is asked for.
            let more = matches!(answer, Answer::Entry(_) | Answer::Intermediate { .. });
            if more && gathered.items.len() >= limits::CHUNK_ENTRIES && !self.hand_on(gathered).await {
                return Ok(PageEnd::Unwanted);
            }
            match answer {
                Answer::Entry(entry) => {
                    gathered.bytes += entry.size();
                    gathered.push(Item::Entry(entry, controls));
                }
                Answer::Intermediate { name, value } => {
                    gathered.bytes += value.as_ref().map_or(0, Bytes::len);
                    gathered.push(Item::Intermediate(name, value));
                }
                Answer::Reference => {
                    self.references += 1;
                    if self.references > limits::REFERENCES_MAX {
                        return Err(self.misbehaved("continuation references without end"));
                    }
                }
                Answer::SearchDone(result) => return self.page_end(result, continued),
                _ => return Err(self.misbehaved("an answer that fits no search")),
            }
            if gathered.bytes >= limits::CHUNK_MAX_BYTES && !self.hand_on(gathered).await {
                return Ok(PageEnd::Unwanted);
            }
        }
    }

    fn page_end(&self, result: OperationResult, continued: bool) -> Result<PageEnd, DirectoryError> {
        // Servers keep few cursors and forget them (RFC 2696 §4): the same search from the beginning is not refused.
        if !result.is_success() && continued && !result.code.is_passing() && !result.code.is_limit() {
            let server = self.lent.server().name().to_string();
            return Err(DirectoryError::PageRefused {
                server,
                code: result.code,
                diagnostic: result.diagnostic,
            });
        }
        if !result.is_success() {
            return Err(self.lent.refused(result, "search"));
        }
        let cookie = match result.control(controls::PAGED).and_then(|control| control.value.as_ref()) {
            Some(value) => controls::paged_cookie(value)
                .map_err(|error| self.misbehaved(format!("a page control that cannot be read: {error}")))?,
            None => Bytes::new(),
        };
        if cookie.is_empty() || self.paging == Paging::Whole {
            Ok(PageEnd::Last(result))
        } else {
            Ok(PageEnd::Next(cookie))
        }
    }

    /// Hands a chunk on and waits until it is worked on, or done with when it is large. False when nobody listens.
    async fn hand_on(&mut self, gathered: &mut Gathered) -> bool {
        let items = std::mem::take(&mut gathered.items);
        let bytes = std::mem::take(&mut gathered.bytes);
        if self.sender.send(Ok(Chunk { items, done: None })).await.is_err() {
            return false;
        }
        let done_with = u32::from(bytes >= 2 * limits::CHUNK_MAX_BYTES);
        let Ok(permits) = self.asked.acquire_many(1 + done_with).await else { return false };
        permits.forget();
        self.asked.add_permits(done_with as usize);
        true
    }

    fn misbehaved(&self, problem: impl Into<String>) -> DirectoryError {
        DirectoryError::misbehaved(self.lent.server().name(), "search", problem)
    }
}

#[derive(Default)]
struct Gathered {
    items: Vec<Item>,
    bytes: usize,
    total: u64,
}

impl Gathered {
    fn push(&mut self, item: Item) {
        self.total += 1;
        self.items.push(item);
    }
}
