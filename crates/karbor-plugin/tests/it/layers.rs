//! What each layer does, around a bank that fails on command.

use std::{sync::Arc, time::Duration};

use karbor_model::{GivenOption, Options};
use karbor_plugin::{Bank, BankError, BankKey, ListRequest, layers};
use karbor_testkit::{Fault, FaultyBank, MemoryBank, Verb};
use tokio::time::Instant;

type Faulty = Arc<FaultyBank<MemoryBank>>;

const MINUTE: Duration = Duration::from_secs(60);

fn faulty() -> Faulty {
    Arc::new(FaultyBank::new(MemoryBank::new()))
}

fn key(text: &str) -> BankKey {
    BankKey::parse(text).unwrap()
}

/// Lets every other task go on until it waits.
async fn others_wait() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_in_passing_is_asked_for_again_three_times() {
    let bank = faulty();
    let patient = layers::retry(bank.clone());
    let a = key("a");
    bank.inject(Fault::Fail, 3, |call| call.verb == Verb::Put);
    let begun = Instant::now();
    patient.put(&a, "text".into()).await.unwrap();
    assert_eq!(bank.count(Verb::Put), 4);
    let took = begun.elapsed().as_millis();
    assert!((1950..=3260).contains(&took), "{took} ms");

    bank.forget_calls()
        .inject(Fault::Fail, usize::MAX, |_| true);
    for (verb, error) in [
        (Verb::Put, patient.put(&a, "x".into()).await.err()),
        (Verb::Get, patient.get(&a).await.err()),
        (Verb::GetRange, patient.get_range(&a, 0, 1).await.err()),
        (Verb::Stat, patient.stat(&a).await.err()),
        (Verb::Delete, patient.delete(&a).await.err()),
        (
            Verb::List,
            patient.list(&ListRequest::default()).await.err(),
        ),
        (Verb::Leases, patient.leases(&a).await.err()),
    ] {
        assert!(error.unwrap().is_retryable());
        assert_eq!(bank.count(verb), 4, "{verb:?}");
    }
}

/// Whether it was carried out is not known, and a repeat would answer for the first.
#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_was_lost_is_not_made_again() {
    let bank = faulty();
    let patient = layers::retry(bank.clone());
    let (a, ttl) = (key("a"), MINUTE);
    bank.inject(Fault::AnswerLost, usize::MAX, |_| true);
    let error = patient.put_new(&a, "text".into()).await.unwrap_err();
    assert!(matches!(error, BankError::Other { .. }), "{error}");
    patient.acquire_lease(&a, "me", ttl).await.unwrap_err();
    let held = bank.inner().leases(&a).await.unwrap().remove(0);
    patient.renew_lease(&held, ttl).await.unwrap_err();
    patient.release_lease(&held).await.unwrap_err();
    for verb in [
        Verb::PutNew,
        Verb::AcquireLease,
        Verb::RenewLease,
        Verb::ReleaseLease,
    ] {
        assert_eq!(bank.count(verb), 1, "{verb:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_repeat_does_not_mend_is_not_repeated() {
    let bank = faulty();
    for fault in [Fault::FailForGood, Fault::Full] {
        bank.inject(fault, 1, |_| true);
        let patient = layers::retry(bank.clone());
        patient.put(&key("a"), "text".into()).await.unwrap_err();
    }
    let hasty = layers::retry(layers::timeout(bank.clone(), MINUTE));
    hasty.get(&key("a")).await.unwrap_err();
    bank.inject(Fault::Hang, 1, |_| true);
    hasty.get(&key("a")).await.unwrap_err();
    assert_eq!((bank.count(Verb::Put), bank.count(Verb::Get)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_bank_that_hangs_is_given_up_after_a_time_that_grows_with_the_request() {
    const MIB: u64 = 1 << 20;
    let bank = faulty();
    let hasty = layers::timeout(bank.clone(), MINUTE);
    bank.inject(Fault::Hang, usize::MAX, |_| true);
    let a = key("a");
    let took = async |asked: &mut (dyn Future<Output = Option<BankError>> + Unpin)| {
        let begun = Instant::now();
        let error = asked.await.unwrap();
        assert!(
            matches!(error, BankError::TimedOut { .. }) && error.is_retryable(),
            "{error}"
        );
        begun.elapsed().as_secs()
    };
    let mut look = Box::pin(async { hasty.stat(&a).await.err() });
    assert_eq!(took(&mut look).await, 60);
    let mut read = Box::pin(async { hasty.get_range(&a, 0, 300 * MIB).await.err() });
    assert_eq!(took(&mut read).await, 360);
    let large = vec![0; 5 << 20];
    let mut write = Box::pin(async { hasty.put(&a, large.into()).await.err() });
    assert_eq!(took(&mut write).await, 65);
}

/// A slow medium moves them all, each at a part of its speed.
#[tokio::test(start_paused = true)]
async fn requests_that_share_a_slow_bank_have_time_for_one_another() {
    let bank = faulty();
    let hasty = layers::timeout(bank.clone(), MINUTE);
    let data = bytes::Bytes::from(vec![0; 30 << 20]);
    let put = |name: &'static str| {
        let (bank, data) = (hasty.clone(), data.clone());
        tokio::spawn(async move {
            let begun = Instant::now();
            let put = bank.put(&key(name), data).await;
            (put.is_ok(), begun.elapsed().as_secs())
        })
    };
    // Alone the first has 90 s, but before they are over three come beside it.
    for is_slow in [true, false] {
        bank.inject(Fault::Hold, usize::MAX, |_| true);
        let first = put("a");
        tokio::time::sleep(Duration::from_secs(80)).await;
        let others = [put("b"), put("c"), put("d")];
        if is_slow {
            tokio::time::sleep(Duration::from_secs(90)).await;
            bank.heal();
        }
        let ends_after = if is_slow { 170 } else { 180 };
        assert_eq!(first.await.unwrap(), (is_slow, ends_after));
        for other in others {
            assert_eq!(other.await.unwrap().0, is_slow);
        }
    }
}

/// A disk that wakes up writes what was given up: nothing later may have been written by then.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_given_up_ends_before_the_next_one_of_the_same_thing() {
    let bank = faulty();
    let hasty = layers::timeout(bank.clone(), MINUTE);
    let (a, b) = (key("a"), key("b"));
    bank.inject(Fault::Hold, 1, |call| call.verb == Verb::Put);
    hasty.put(&a, "old".into()).await.unwrap_err();
    // The first may happen yet, so the next is not made, nor is it deleted.
    hasty.put(&a, "new".into()).await.unwrap_err();
    hasty.delete(&a).await.unwrap_err();
    assert_eq!((bank.count(Verb::Put), bank.count(Verb::Delete)), (1, 0));
    hasty.put(&b, "another".into()).await.unwrap();
    hasty.acquire_lease(&a, "me", MINUTE).await.unwrap();
    bank.heal();
    hasty.put(&a, "newest".into()).await.unwrap();
    assert_eq!(bank.inner().get(&a).await.unwrap(), "newest");
    assert_eq!(bank.count(Verb::Put), 3);
}

/// A caller that goes, because its run was cancelled or its own patience ended, does not call the disk's write back.
#[tokio::test(start_paused = true)]
async fn a_change_whose_caller_went_ends_before_the_next_one_of_the_same_thing() {
    let bank = faulty();
    let hasty = layers::timeout(bank.clone(), MINUTE);
    let a = key("a");
    bank.inject(Fault::Hold, 1, |call| call.verb == Verb::Put);
    let second = Duration::from_secs(1);
    let put = tokio::time::timeout(second, hasty.put(&a, "old".into()));
    put.await.unwrap_err();
    hasty.delete(&a).await.unwrap_err();
    assert_eq!((bank.count(Verb::Put), bank.count(Verb::Delete)), (1, 0));
    let new = hasty.put(&a, "new".into());
    let healed = async {
        others_wait().await;
        bank.heal();
    };
    tokio::join!(new, healed).0.unwrap();
    assert_eq!(bank.inner().get(&a).await.unwrap(), "new");
    assert_eq!(bank.count(Verb::Put), 2);

    bank.inject(Fault::Hold, 1, |call| call.verb == Verb::AcquireLease);
    let claim = tokio::time::timeout(second, hasty.acquire_lease(&a, "me", MINUTE));
    claim.await.unwrap_err();
    hasty.acquire_lease(&a, "me", MINUTE).await.unwrap_err();
    assert_eq!(bank.count(Verb::AcquireLease), 1);
}

/// A bank without a limit holds the next change back too.
#[tokio::test(start_paused = true)]
async fn a_change_whose_caller_went_is_waited_for_without_a_limit() {
    let bank = faulty();
    let options = [("max_requests", "40"), ("request_timeout", "0")].map(|(name, value)| {
        let def = layers::OPTIONS.iter().find(|def| def.name == name).unwrap();
        GivenOption {
            values: vec![value.to_owned()],
            ..GivenOption::from(*def)
        }
    });
    let limits = layers::Limits::of(&Options::check(options).unwrap()).unwrap();
    let (patient, _) = layers::layered(bank.clone(), limits);
    let a = key("a");
    bank.inject(Fault::Hold, 1, |call| call.verb == Verb::Put);
    let put = tokio::time::timeout(MINUTE, patient.put(&a, "old".into()));
    put.await.unwrap_err();
    let new = tokio::time::timeout(100 * MINUTE, patient.put(&a, "new".into()));
    new.await.unwrap_err();
    assert_eq!(bank.count(Verb::Put), 1);
    bank.heal();
    patient.put(&a, "newest".into()).await.unwrap();
    assert_eq!(bank.inner().get(&a).await.unwrap(), "newest");
}

/// What it holds would be held for ever, if the next change of the same thing alone made it go on.
#[tokio::test(start_paused = true)]
async fn a_change_that_was_given_up_keeps_no_turn_at_the_bank() {
    let bank = faulty();
    let hasty = layers::timeout(layers::concurrency(bank.clone(), 1), MINUTE);
    let (a, b) = (key("a"), key("b"));
    bank.inject(Fault::Hold, 1, |call| call.verb == Verb::Put);
    hasty.put(&a, "held".into()).await.unwrap_err();
    hasty.put(&b, "behind".into()).await.unwrap_err();
    bank.heal();
    assert_eq!(hasty.get(&a).await.unwrap(), "held");
    assert_eq!(hasty.get(&b).await.unwrap(), "behind");
}

#[tokio::test]
async fn only_so_many_requests_are_at_the_bank_at_once() {
    let bank = faulty();
    let shared = layers::concurrency(bank.clone(), 2);
    bank.inner().put(&key("a"), "text".into()).await.unwrap();
    bank.inject(Fault::Hold, usize::MAX, |call| call.verb == Verb::Get);
    let ask = || {
        let bank = shared.clone();
        tokio::spawn(async move { bank.get(&key("a")).await })
    };
    let asked = [ask(), ask(), ask(), ask()];
    others_wait().await;
    assert_eq!(bank.count(Verb::Get), 2);
    // A lease waits for nobody's data, and who goes makes room.
    let lease = shared.acquire_lease(&key("a"), "me", MINUTE).await;
    shared.release_lease(&lease.unwrap()).await.unwrap();
    asked[0].abort();
    others_wait().await;
    assert_eq!(bank.count(Verb::Get), 3);
    bank.heal();
    for (at, one) in asked.into_iter().enumerate() {
        assert_eq!(one.await.is_ok(), at > 0, "{at}");
    }
    assert_eq!(bank.count(Verb::Get), 4);
}

#[tokio::test]
async fn requests_are_counted_with_what_they_moved() {
    let bank = faulty();
    let (counted, metrics) = layers::metrics(bank.clone());
    let a = key("a");
    counted.put(&a, "12345".into()).await.unwrap();
    counted.put_new(&a, "123".into()).await.unwrap_err();
    counted.get(&a).await.unwrap();
    counted.get_range(&a, 1, 2).await.unwrap();
    counted.get(&key("b")).await.unwrap_err();
    counted.stat(&a).await.unwrap();
    counted.list(&ListRequest::default()).await.unwrap();
    let lease = counted.acquire_lease(&a, "me", MINUTE).await.unwrap();
    counted.renew_lease(&lease, MINUTE).await.unwrap();
    counted.leases(&a).await.unwrap();
    counted.release_lease(&lease).await.unwrap();
    bank.inject(Fault::Fail, 1, |_| true);
    counted.delete(&a).await.unwrap_err();
    let counts = metrics.counts();
    let wanted = layers::BankCounts {
        puts: 2,
        gets: 3,
        deletes: 1,
        looks: 2,
        leases: 4,
        errors: 1,
        bytes_written: 5,
        bytes_read: 7,
        time: counts.time,
    };
    assert_eq!(counts, wanted);
}

#[tokio::test(start_paused = true)]
async fn the_time_is_the_bank_s() {
    let bank = faulty();
    let (counted, metrics) = layers::metrics(layers::timeout(bank.clone(), MINUTE));
    bank.inject(Fault::Hang, 1, |_| true);
    counted.stat(&key("a")).await.unwrap_err();
    let counts = metrics.counts();
    assert_eq!((counts.errors, counts.time.as_secs()), (1, 60));
}
