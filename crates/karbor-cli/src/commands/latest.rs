//! `--latest`: which checkpoint of a plan is meant.
//!
//! The newest that is available, as a rule. Where it is incomplete or suspicious and an older one is not, the
//! two are different answers to the same wish, and a person has to say which. One that is dated in the future,
//! by a clock that was wrong, is not the newest: it is left aside, and named.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, Utc};
use karbor_model::one_line;
use serde_json::Value;

use super::checkpoint::{Search, add_times, made, made_on};
use crate::{error::CliError, flaws::Flaws, output::string, report, session::Session};

/// By how much the clocks of a service and its client may differ.
const SKEW: TimeDelta = TimeDelta::minutes(5);
/// So much of what is missing is named in a question.
const NAMED: usize = 10;

/// What was said about incomplete and suspicious checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Unsaid,
    /// None of them.
    Complete,
    /// The newest, whatever it is.
    Newest,
}

/// What was decided, and what a person has to know of it.
#[derive(Debug)]
struct Choice {
    found: (String, Value),
    notes: Vec<String>,
}

/// The newest checkpoint of a plan that can be restored.
pub(super) async fn latest(
    session: &mut Session,
    plan: &str,
    provider: Option<String>,
    wish: Wish,
) -> Result<(String, Value), CliError> {
    let search = Search {
        plan: Some(plan.to_owned()),
        provider: provider.clone(),
        query: vec![("status", "available".to_owned())],
        limit: None,
    };
    let mut found = search.run(session).await?;
    found.retain(|(_, checkpoint)| string(checkpoint, "status") == "available");
    // Newest first of each provider already: what is left is whose newest it is.
    found.sort_by_key(|(_, checkpoint)| std::cmp::Reverse(made_on(checkpoint)));
    let mut checkpoints: Vec<_> = found.iter().map(|(_, one)| one.clone()).collect();
    // Whose log cannot be read is known by its day.
    if add_times(session, &mut checkpoints).await.is_ok() {
        for ((_, checkpoint), timed) in found.iter_mut().zip(checkpoints) {
            *checkpoint = timed;
        }
    }
    let choice = choose(plan, found, wish, Utc::now())?;
    for note in choice.notes {
        session.warn(&note)?;
    }
    passed_over(session, plan, provider, &choice.found.1).await?;
    Ok(choice.found)
}

/// So many checkpoints that are passed over are named.
const PASSED_OVER: usize = 10;

/// Names what cannot be read and is, by what the bank says of it, no older than what was found: somebody may have
/// changed it so that an older one is taken. It is a courtesy: the restore goes on without.
async fn passed_over(
    session: &mut Session,
    plan: &str,
    provider: Option<String>,
    found: &Value,
) -> Result<(), CliError> {
    let search = Search {
        plan: Some(plan.to_owned()),
        provider,
        query: vec![("status", "error".to_owned())],
        limit: None,
    };
    let failed = search.run(session).await.unwrap_or_default();
    let unreadable = failed.iter().filter_map(|(_, checkpoint)| {
        let reason = Flaws::of(checkpoint).unreadable()?.to_owned();
        (made_on(checkpoint) >= made_on(found)).then_some((checkpoint, reason))
    });
    for (checkpoint, reason) in unreadable.take(PASSED_OVER) {
        let (id, day) = (string(checkpoint, "id"), made_on(checkpoint));
        let reason = one_line(&reason);
        session.warn(&format!("passed over: checkpoint {id} of {day}: {reason}"))?;
    }
    Ok(())
}

/// Chooses among the available checkpoints of a plan, newest first.
fn choose(
    plan: &str,
    found: Vec<(String, Value)>,
    wish: Wish,
    now: DateTime<Utc>,
) -> Result<Choice, CliError> {
    if found.is_empty() {
        return Err(CliError::not_found(format!(
            "plan {plan} has no checkpoint that is available"
        ))
        .hint(format!("make one: karbor protect {plan} --wait")));
    }
    let (future, mut found): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(_, checkpoint)| is_future(checkpoint, now));
    if found.is_empty() {
        let (_, newest) = &future[0];
        return Err(CliError::usage(format!(
            "every checkpoint of {plan} is dated in the future, the newest {}; a clock was, or is, wrong",
            told(newest)
        ))
        .hint(format!(
            "look at the clocks; `karbor checkpoint list {plan}` shows them, --checkpoint <id> \
             restores one"
        )));
    }
    let mut notes: Vec<_> = future
        .iter()
        .map(|(_, one)| {
            format!(
                "{} is dated in the future and is left aside: a clock was wrong when it was made",
                told(one)
            )
        })
        .collect();
    let flaws = Flaws::of(&found[0].1);
    let good = found
        .iter()
        .position(|(_, one)| !Flaws::of(one).are_there());
    let at = match (wish, good) {
        (Wish::Complete, None) => {
            return Err(CliError::not_found(format!(
                "plan {plan} has no checkpoint without flaws; the newest is {}",
                told(&found[0].1)
            ))
            .hint("--accept-incomplete restores it"));
        }
        (Wish::Complete, Some(at)) => at,
        (Wish::Unsaid, Some(at)) if at > 0 => {
            return Err(question(plan, &found[0].1, &flaws, &found[at].1));
        }
        _ => 0,
    };
    let chosen = found.swap_remove(at);
    let flaws = Flaws::of(&chosen.1);
    if flaws.are_there() {
        let why = match good {
            None => "no checkpoint of the plan is without",
            Some(_) => "as you wish",
        };
        notes.push(format!(
            "{} is {} and is restored all the same ({why}){}",
            told(&chosen.1),
            flaws.brief(),
            lines(&chosen.1, &flaws)
        ));
    }
    Ok(Choice {
        found: chosen,
        notes,
    })
}

/// The newest is not what it should be, and an older one is: which one is meant?
fn question(plan: &str, newest: &Value, flaws: &Flaws, good: &Value) -> CliError {
    CliError::usage(format!(
        "the newest checkpoint of {plan}, {}, is {}{}\n  the newest without flaws is {}",
        told(newest),
        flaws.brief(),
        lines(newest, flaws),
        told(good)
    ))
    .hint("--complete restores the older one, --accept-incomplete the newest")
}

fn lines(checkpoint: &Value, flaws: &Flaws) -> String {
    let lines = flaws.lines(&report::names(checkpoint));
    let mut told: String = lines
        .iter()
        .take(NAMED)
        .map(|line| format!("\n    {}", one_line(line)))
        .collect();
    if lines.len() > NAMED {
        told.push_str(&format!(
            "\n    … (`karbor checkpoint show {}` names more)",
            string(checkpoint, "id")
        ));
    }
    told
}

/// Id and age.
fn told(checkpoint: &Value) -> String {
    format!("{} of {}", string(checkpoint, "id"), made(checkpoint))
}

/// Of some checkpoints nothing but the day is known.
fn is_future(checkpoint: &Value, now: DateTime<Utc>) -> bool {
    let made = made(checkpoint);
    match NaiveDateTime::parse_from_str(&made, "%Y-%m-%d %H:%M:%S") {
        Ok(made) => made.and_utc() > now + SKEW,
        Err(_) => made
            .parse::<NaiveDate>()
            .is_ok_and(|day| day > (now + SKEW).date_naive()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use chrono::TimeZone as _;
    use serde_json::json;

    use super::*;
    use crate::Exit;

    fn checkpoint(id: &str, day: &str, flaw: Value) -> (String, Value) {
        let checkpoint = json!({
            "id": id, "created_at": day, "status": "available", "extra_info": flaw.to_string(),
        });
        ("provider".to_owned(), checkpoint)
    }

    fn missing() -> Value {
        let named = json!([{"path": "/srv/a", "reason": "Permission denied"}]);
        json!({"incomplete": {
            "total": 3, "resources": {"T#1": {"total": 3, "named": named}},
        }})
    }

    fn chosen(found: &[(String, Value)], wish: Wish) -> Result<(String, Vec<String>), CliError> {
        let now = Utc.with_ymd_and_hms(2030, 6, 15, 12, 0, 0).unwrap();
        let choice = choose("shop", found.to_vec(), wish, now)?;
        Ok((string(&choice.found.1, "id").to_owned(), choice.notes))
    }

    #[test]
    fn an_incomplete_one_is_not_stepped_over_in_silence() {
        let found = [
            checkpoint("new", "2030-06-15", missing()),
            checkpoint("old", "2030-06-14", json!({})),
        ];
        let error = chosen(&found, Wish::Unsaid).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        let told = error.to_string();
        for part in [
            "new of 2030-06-15",
            "old of 2030-06-14",
            "/srv/a (Permission denied)",
            "and 2 more",
            "--complete",
            "--accept-incomplete",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let (id, notes) = chosen(&found, Wish::Complete).unwrap();
        assert!(id == "old" && notes.is_empty());
        let (id, notes) = chosen(&found, Wish::Newest).unwrap();
        assert!(id == "new" && notes[0].contains("incomplete"), "{notes:?}");
        // Nothing else is there: it is restored, and that is said.
        let (id, notes) = chosen(&found[..1], Wish::Unsaid).unwrap();
        assert!(id == "new" && notes[0].contains("/srv/a"), "{notes:?}");
        assert_eq!(
            chosen(&found[..1], Wish::Complete).unwrap_err().exit,
            Exit::NotFound
        );
        // An incomplete one before a good one does not matter.
        let turned = [found[1].clone(), found[0].clone()];
        assert_eq!(
            chosen(&turned, Wish::Unsaid).unwrap(),
            ("old".to_owned(), vec![])
        );
    }

    #[test]
    fn a_suspicious_one_asks_too() {
        let flaw = json!({"suspicious": {"resources": {"T#1": "it is empty"}}});
        let found = [
            checkpoint("new", "2030-06-15", flaw),
            checkpoint("old", "2030-06-14", json!({})),
        ];
        let told = chosen(&found, Wish::Unsaid).unwrap_err().to_string();
        assert!(
            told.contains("suspicious") && told.contains("it is empty"),
            "{told}"
        );
    }

    #[test]
    fn one_from_the_future_is_left_aside_and_named() {
        let found = [
            checkpoint("ahead", "2031-06-15", json!({})),
            checkpoint("new", "2030-06-15", json!({})),
        ];
        let (id, notes) = chosen(&found, Wish::Unsaid).unwrap();
        assert!(id == "new" && notes[0].contains("ahead"), "{notes:?}");
        let error = chosen(&found[..1], Wish::Unsaid).unwrap_err();
        assert!(error.to_string().contains("--checkpoint"), "{error}");
    }
}
