//! A queue between threads that is bounded by what its items weigh.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex},
    time::Duration,
};

use crate::repository::lock;

/// How often somebody who waits looks whether he should stop.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) struct Queue<T> {
    limit: usize,
    inner: Mutex<Inner<T>>,
    filled: Condvar,
    emptied: Condvar,
}

struct Inner<T> {
    items: VecDeque<(usize, T)>,
    weight: usize,
    closed: bool,
}

/// The item was not taken: the queue is closed, or the pusher was told to stop.
#[derive(Debug)]
pub(crate) struct Refused;

impl<T> Queue<T> {
    /// A queue that takes items until they weigh `limit` together; a single one may weigh more.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            inner: Mutex::new(Inner {
                items: VecDeque::new(),
                weight: 0,
                closed: false,
            }),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Adds an item, as soon as there is room.
    pub(crate) fn push(
        &self,
        weight: usize,
        item: T,
        stop: impl Fn() -> bool,
    ) -> Result<(), Refused> {
        let mut inner = lock(&self.inner);
        loop {
            if inner.closed || stop() {
                return Err(Refused);
            }
            if inner.weight == 0 || inner.weight + weight <= self.limit {
                inner.weight += weight;
                inner.items.push_back((weight, item));
                drop(inner);
                self.filled.notify_one();
                return Ok(());
            }
            inner = match self.emptied.wait_timeout(inner, LOOK) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Takes the oldest item; waits for one. `None`: closed and empty.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut inner = lock(&self.inner);
        loop {
            if let Some((weight, item)) = inner.items.pop_front() {
                inner.weight -= weight;
                drop(inner);
                self.emptied.notify_all();
                return Some(item);
            }
            if inner.closed {
                return None;
            }
            inner = self
                .filled
                .wait(inner)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Nothing more may be added; what is there is still handed out.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// As `close`, and what is there is dropped.
    pub(crate) fn clear(&self) {
        let items = {
            let mut inner = lock(&self.inner);
            inner.closed = true;
            inner.weight = 0;
            std::mem::take(&mut inner.items)
        };
        drop(items);
        self.filled.notify_all();
        self.emptied.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_goes_in_comes_out_and_the_bound_holds() {
        let queue = Arc::new(Queue::new(10));
        let pusher = {
            let queue = queue.clone();
            std::thread::spawn(move || {
                for item in 0..1000 {
                    queue.push(4, item, || false).unwrap();
                    assert!(lock(&queue.inner).weight <= 10);
                }
                queue.close();
            })
        };
        let items: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
        pusher.join().unwrap();
    }

    #[test]
    fn who_waits_can_be_stopped_and_a_heavy_item_passes() {
        let queue = Queue::new(10);
        queue.push(100, 1, || false).unwrap();
        let stop = std::cell::Cell::new(false);
        let told = || stop.replace(true);
        assert!(queue.push(1, 2, told).is_err());
        assert_eq!(queue.pop(), Some(1));
        queue.close();
        assert!(queue.push(1, 3, || false).is_err());
        assert_eq!(queue.pop(), None);
    }
}
