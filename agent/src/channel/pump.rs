//! Bytes in and out of a stream without waiting for the peer to read.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use causeway_protocol::channel::StreamElement;
use futures_util::StreamExt;
use tokio_xmpp::xmlstream::ReadError;

use super::login::Stream;
use crate::limits::WRITE_QUEUE_MAX;

#[expect(
    clippy::large_enum_variant,
    reason = "lives for one turn of the loop; a box would cost an allocation per stanza"
)]
pub(super) enum Step {
    Read(Option<Result<StreamElement, ReadError>>),
    Wrote,
    Failed(io::Error),
}

/// Writes what waits, then reads. Ready when an element came, or when a full queue has room again.
pub(super) async fn io_step(
    stream: &mut Stream,
    queue: &mut VecDeque<StreamElement>,
    flushed: &mut bool,
    readable: bool,
) -> Step {
    let was_full = queue.len() >= WRITE_QUEUE_MAX;
    std::future::poll_fn(|cx| {
        if let Err(error) = write_some(stream, queue, flushed, cx) {
            return Poll::Ready(Step::Failed(error));
        }
        if was_full && queue.len() < WRITE_QUEUE_MAX {
            return Poll::Ready(Step::Wrote);
        }
        if !readable {
            return Poll::Pending;
        }
        stream.poll_next_unpin(cx).map(Step::Read)
    })
    .await
}

fn write_some(
    stream: &mut Stream,
    queue: &mut VecDeque<StreamElement>,
    flushed: &mut bool,
    cx: &mut Context<'_>,
) -> io::Result<()> {
    type Out<'a> = &'a StreamElement;
    while let Some(element) = queue.front() {
        match futures_util::Sink::<Out<'_>>::poll_ready(Pin::new(&mut *stream), cx)? {
            Poll::Pending => break,
            Poll::Ready(()) => {
                futures_util::Sink::<Out<'_>>::start_send(Pin::new(&mut *stream), element)?;
                queue.pop_front();
                *flushed = false;
            }
        }
    }
    if !*flushed && futures_util::Sink::<Out<'_>>::poll_flush(Pin::new(stream), cx)?.is_ready() {
        *flushed = true;
    }
    Ok(())
}
