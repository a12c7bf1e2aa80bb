use karbor_db::{Db, DbError, Direction, ListQuery};
use karbor_model::{OperationType, Plan, PlanId, PlanStatus};
use proptest::prelude::*;

use crate::support::{at, begin, fixture, operation_log, plan, restore};

fn names(plans: &[Plan]) -> Vec<&str> {
    plans.iter().map(|plan| plan.name.as_str()).collect()
}

fn filtered(filters: &[(&str, &str)]) -> ListQuery {
    ListQuery {
        filters: filters
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..ListQuery::of_every_project()
    }
}

async fn store(db: &Db, project: &str, name: &str, micros: i64) -> Plan {
    let plan = Plan {
        created_at: at(micros),
        ..plan(project, name)
    };
    db.plans().create(&plan).await.unwrap();
    plan
}

#[tokio::test]
async fn newest_first_and_only_the_projects() {
    let fixture = fixture().await;
    let db = &fixture.db;
    for (micros, name) in [(0, "a"), (1, "b"), (2, "c")] {
        store(db, "p", name, micros).await;
    }
    store(db, "q", "foreign", 9).await;
    let mine = db.plans().list(&ListQuery::project("p")).await.unwrap();
    assert_eq!(names(&mine), ["c", "b", "a"]);
    assert_eq!(mine[0].resources.len(), 2);
    assert_eq!(
        mine[0].resources[0].id, "r-2",
        "in the order of the request"
    );
    let all = db
        .plans()
        .list(&ListQuery::of_every_project())
        .await
        .unwrap();
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn filters_by_known_columns_and_ignores_others() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let a = store(db, "p", "a", 1).await;
    let b = store(db, "q", "b", 2).await;
    db.plans()
        .set_status(b.id, PlanStatus::Suspended, PlanStatus::Started)
        .await
        .unwrap();
    let (provider, id) = (a.provider_id.to_string(), b.id.to_string());
    for (filters, expected) in [
        (vec![("provider_id", provider.as_str())], vec!["a"]),
        (vec![("id", id.as_str())], vec!["b"]),
        (vec![("status", "started")], vec!["b"]),
        (vec![("status", "bogus")], vec![]),
        (vec![("project_id", "p")], vec!["a"]),
        (
            vec![("created_at", "2025-10-09 08:53:20.000001")],
            vec!["a"],
        ),
        (vec![("name", "a"), ("name", "b")], vec!["b", "a"]),
        (vec![("name", "a"), ("status", "started")], vec![]),
        (vec![("colour", "red")], vec!["b", "a"]),
    ] {
        let found = db.plans().list(&filtered(&filters)).await.unwrap();
        assert_eq!(names(&found), expected, "{filters:?}");
    }
    let error = db.plans().list(&filtered(&[("created_at", "noon")])).await;
    assert!(error.unwrap_err().to_string().contains("'noon'"));
}

/// Q15: an unknown filter emptied the lists of restores and operation logs.
#[tokio::test]
async fn q15_unknown_filters_are_ignored_everywhere() {
    let fixture = fixture().await;
    let db = &fixture.db;
    begin(db, &restore("p")).await;
    db.runs()
        .operation_log_create(&operation_log("p"))
        .await
        .unwrap();
    let query = filtered(&[("colour", "red")]);
    assert_eq!(
        db.runs()
            .readback_list(OperationType::Restore, &query)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(db.runs().operation_log_list(&query).await.unwrap().len(), 1);
    let query = filtered(&[("verification_id", "none")]);
    assert!(
        db.runs()
            .operation_log_list(&query)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Q70: what looked like a literal of Python was left aside.
#[tokio::test]
async fn q70_a_name_filter_is_searched_for_as_it_is() {
    let fixture = fixture().await;
    let db = &fixture.db;
    let injection = "x'; DROP TABLE plans; --";
    for (micros, name) in ["plan 5", "100%", "a_b", "axb", injection, "(("]
        .into_iter()
        .enumerate()
    {
        store(db, "p", name, i64::try_from(micros).unwrap()).await;
    }
    for (filter, expected) in [
        ("5", vec!["plan 5"]),
        ("True", vec![]),
        ("PLAN", vec![]),
        ("%", vec!["100%"]),
        ("a_b", vec!["a_b"]),
        (r"\(\(", vec!["(("]),
        ("[(]{2}", vec!["(("]),
        ("_|;", vec![injection, "a_b"]),
        ("'; DROP", vec![injection]),
    ] {
        let found = db
            .plans()
            .list(&filtered(&[("name", filter)]))
            .await
            .unwrap();
        assert_eq!(names(&found), expected, "{filter}");
    }
}

/// Q13: an unknown sort key was a 500.
#[tokio::test]
async fn q13_unknown_sort_keys_are_named() {
    let fixture = fixture().await;
    for key in ["colour", "parameters", "id; DROP TABLE plans", ""] {
        let query = ListQuery {
            sort: vec![(key.to_owned(), Direction::Ascending)],
            ..ListQuery::of_every_project()
        };
        let error = fixture.db.plans().list(&query).await.unwrap_err();
        assert!(
            matches!(error, DbError::BadRequest { field: "sort", .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(&format!("'{key}'")), "{error}");
    }
}

#[tokio::test]
async fn unknown_and_foreign_markers_are_named() {
    let fixture = fixture().await;
    let db = &fixture.db;
    store(db, "p", "mine", 1).await;
    let foreign = store(db, "q", "foreign", 2).await.id.to_string();
    for marker in [foreign, PlanId::new().to_string(), "../etc".into()] {
        let query = ListQuery {
            marker: Some(marker.clone()),
            ..ListQuery::project("p")
        };
        let error = db.plans().list(&query).await.unwrap_err();
        assert!(matches!(error, DbError::NotFound { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("Plan {marker} could not be found.")
        );
    }
}

#[tokio::test]
async fn a_page_can_follow_one_whose_last_plan_was_deleted() {
    let fixture = fixture().await;
    let db = &fixture.db;
    store(db, "p", "old", 1).await;
    let last = store(db, "p", "last", 2).await;
    db.plans().delete(last.id).await.unwrap();
    let query = ListQuery {
        marker: Some(last.id.to_string().to_uppercase()),
        ..ListQuery::project("p")
    };
    assert_eq!(names(&db.plans().list(&query).await.unwrap()), ["old"]);
}

#[tokio::test]
async fn offsets_and_limits_of_any_size() {
    let fixture = fixture().await;
    let db = &fixture.db;
    for (micros, name) in [(0, "a"), (1, "b"), (2, "c")] {
        store(db, "p", name, micros).await;
    }
    for (limit, offset, expected) in [
        (None, 1, vec!["b", "a"]),
        (Some(1), 1, vec!["b"]),
        (Some(0), 0, vec![]),
        (Some(u64::MAX), 0, vec!["c", "b", "a"]),
        (None, u64::MAX, vec![]),
    ] {
        let query = ListQuery {
            limit,
            offset,
            ..ListQuery::project("p")
        };
        let found = db.plans().list(&query).await.unwrap();
        assert_eq!(names(&found), expected, "{limit:?} {offset}");
    }
}

const KEYS: [&str; 8] = [
    "id",
    "name",
    "description",
    "provider_id",
    "project_id",
    "status",
    "created_at",
    "updated_at",
];

/// A plan's value under a sort key, in a form that sorts as it should; NULL is the smallest.
fn key(plan: &Plan, key: &str) -> String {
    match key {
        "id" => plan.id.to_string(),
        "name" => plan.name.clone(),
        "description" => plan.description.clone().unwrap_or_default(),
        "provider_id" => plan.provider_id.to_string(),
        "project_id" => plan.project_id.clone(),
        "status" => plan.status.to_string(),
        "created_at" => plan.created_at.to_rfc3339(),
        _ => plan
            .updated_at
            .map(|at| at.to_rfc3339())
            .unwrap_or_default(),
    }
}

fn sorted(mut plans: Vec<Plan>, sort: &[(String, Direction)]) -> Vec<PlanId> {
    let last = sort
        .first()
        .map_or(Direction::Descending, |(_, direction)| *direction);
    let mut keys: Vec<(&str, Direction)> = sort.iter().map(|(k, d)| (k.as_str(), *d)).collect();
    keys.extend([("created_at", last), ("id", last)]);
    plans.sort_by(|a, b| {
        keys.iter()
            .map(|(name, direction)| {
                let order = key(a, name).cmp(&key(b, name));
                match direction {
                    Direction::Ascending => order,
                    Direction::Descending => order.reverse(),
                }
            })
            .find(|order| order.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    plans.into_iter().map(|plan| plan.id).collect()
}

async fn walk(db: &Db, sort: &[(String, Direction)], limit: u64) -> Vec<PlanId> {
    let mut seen: Vec<PlanId> = Vec::new();
    loop {
        let query = ListQuery {
            sort: sort.to_vec(),
            limit: Some(limit),
            marker: seen.last().map(ToString::to_string),
            ..ListQuery::of_every_project()
        };
        let page = db.plans().list(&query).await.unwrap();
        if page.is_empty() {
            return seen;
        }
        seen.extend(page.iter().map(|plan| plan.id));
    }
}

fn any_sort() -> impl Strategy<Value = Vec<(String, Direction)>> {
    let direction = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    let key = (proptest::sample::select(&KEYS[..]), direction);
    proptest::collection::vec(key.prop_map(|(k, d)| (k.to_owned(), d)), 0..4)
}

/// Few different values, so that many rows are equal in what is sorted by.
fn any_plan() -> impl Strategy<Value = Plan> {
    let text = || proptest::sample::select(&["a", "b"][..]);
    let maybe_text = proptest::option::of(text());
    let maybe_time = proptest::option::of(0..3_i64);
    (0..3_i64, text(), maybe_text, maybe_time).prop_map(|(created, name, description, updated)| {
        Plan {
            created_at: at(created),
            updated_at: updated.map(at),
            description: description.map(str::to_owned),
            resources: Vec::new(),
            ..plan("p", name)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Q22's lesson, for the database: pages neither repeat nor miss, whatever is sorted by.
    #[test]
    fn pages_together_are_the_whole_list(
        plans in proptest::collection::vec(any_plan(), 0..20),
        sorts in proptest::collection::vec((any_sort(), 1..7_u64), 4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let db = Db::connect("sqlite::memory:").await.unwrap();
            db.migrate().await.unwrap();
            for plan in &plans {
                db.plans().create(plan).await.unwrap();
            }
            for (sort, limit) in &sorts {
                assert_eq!(walk(&db, sort, *limit).await, sorted(plans.clone(), sort), "{sort:?}");
            }
        });
    }
}

/// A filter of text is a regular expression, searched for, and the pages of what it finds are those of
/// every list.
#[tokio::test]
async fn text_is_searched_for_regular_expressions() {
    let fixture = fixture().await;
    let db = &fixture.db;
    for (micros, name) in ["web-1", "web-2", "db-1", "Web-3", "a.b", "axb"]
        .iter()
        .enumerate()
    {
        store(db, "p", name, i64::try_from(micros).unwrap()).await;
    }
    for (filters, expected) in [
        (vec![("name", "^web-")], vec!["web-2", "web-1"]),
        (vec![("name", "(?i)^web")], vec!["Web-3", "web-2", "web-1"]),
        (vec![("name", "-[12]$")], vec!["db-1", "web-2", "web-1"]),
        (vec![("name", "a.b")], vec!["axb", "a.b"]),
        (vec![("name", r"a\.b")], vec!["a.b"]),
        (
            vec![("name", "web-1"), ("name", "^a")],
            vec!["axb", "a.b", "web-1"],
        ),
        (vec![("name", "^web"), ("status", "started")], vec![]),
        (vec![("name", "eb"), ("description", "^made")], vec![]),
    ] {
        let found = db.plans().list(&filtered(&filters)).await.unwrap();
        assert_eq!(names(&found), expected, "{filters:?}");
    }
    let mut page = ListQuery {
        limit: Some(1),
        offset: 1,
        ..filtered(&[("name", "^.eb-")])
    };
    let first = db.plans().list(&page).await.unwrap();
    assert_eq!(names(&first), ["web-2"]);
    page.offset = 0;
    page.marker = Some(first[0].id.to_string());
    assert_eq!(names(&db.plans().list(&page).await.unwrap()), ["web-1"]);
    page.marker = Some(PlanId::new().to_string());
    let unknown = db.plans().list(&page).await.unwrap_err();
    assert!(matches!(unknown, DbError::NotFound { .. }), "{unknown}");
}

/// More rows than are looked at at once, of which few are found.
#[tokio::test]
async fn what_is_rare_is_found_in_a_long_list() {
    let fixture = fixture().await;
    let db = &fixture.db;
    for micros in 0..1203 {
        let name = if micros % 400 == 1 {
            format!("rare {micros}")
        } else {
            format!("{micros}")
        };
        store(db, "p", &name, micros).await;
    }
    let query = filtered(&[("name", "^rare [0-9]+$")]);
    let found = db.plans().list(&query).await.unwrap();
    assert_eq!(
        names(&found),
        ["rare 1201", "rare 801", "rare 401", "rare 1"]
    );
}

#[tokio::test]
async fn what_is_no_expression_is_told_with_its_column() {
    let fixture = fixture().await;
    let db = &fixture.db;
    store(db, "p", "a", 1).await;
    for pattern in [
        "(",
        "a{2",
        "[z-a]",
        "*",
        r"(a)\1",
        "(?=a)",
        "(a{1000}){1000}",
        r"\Z",
    ] {
        let error = db
            .plans()
            .list(&filtered(&[("name", pattern)]))
            .await
            .unwrap_err();
        let DbError::BadRequest { field, message } = error else {
            panic!("{pattern}: {error}");
        };
        assert_eq!(field, "name");
        assert!(
            message.contains("name") && message.contains("regular expression"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
    // What makes other engines run for ever.
    let query = filtered(&[("description", "^(a+)+$")]);
    assert!(db.plans().list(&query).await.unwrap().is_empty());
}
