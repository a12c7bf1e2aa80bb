//! Finding what is declared.

use std::{cell::RefCell, fs};

use karbor_model::{RequestContext, Resource};
use karbor_plugin::contract::protectable;
use karbor_plugins::applications::APPLICATION;
use serde_json::json;

use super::{DIRECTORY, Lab, POSTGRESQL, SQLITE, request};

const COMPONENTS: &str = r#"
[[directory]]
name = "files"
path = "/srv/files"
[[directory]]
name = "more"
path = "/srv/more"
[[sqlite]]
name = "sessions"
path = "/srv/sessions.db"
[[postgresql]]
name = "orders"
database = "shop"
passfile = "/etc/secret/pgpass"
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.declare(COMPONENTS);
    lab
}

#[tokio::test]
async fn they_keep_the_contract() {
    for resource_type in [APPLICATION, DIRECTORY, SQLITE, POSTGRESQL] {
        let labs = RefCell::new(Vec::new());
        let fresh = async || {
            let lab = lab();
            let parents = match resource_type {
                APPLICATION => Vec::new(),
                _ => lab.resources(APPLICATION).await,
            };
            let protectable = lab.registry.protectables()[resource_type].clone();
            labs.borrow_mut().push(lab);
            protectable::Setting {
                protectable,
                context: request(),
                stranger: Some(RequestContext::for_project("root", "other", true)),
                parents,
            }
        };
        protectable::suite(fresh).await;
    }
}

#[tokio::test]
async fn an_application_depends_on_its_components() {
    let lab = lab();
    let shop = lab.resource(APPLICATION).await;
    let mut found = Vec::new();
    let all = lab.registry.protectables().values();
    for protectable in all.filter(|protectable| protectable.can_look_up()) {
        found.extend(protectable.dependents(&request(), &shop).await.unwrap());
    }
    let mut names: Vec<&str> = found
        .iter()
        .map(|resource| resource.name.as_str())
        .collect();
    names.sort();
    assert_eq!(names, ["files", "more", "orders", "sessions"]);
    for resource in &found {
        assert_eq!(resource.extra_info, Some(json!({"application": "shop"})));
        let protectable = &lab.registry.protectables()[&resource.resource_type];
        assert_eq!(protectable.parent_types(), [APPLICATION]);
        assert!(
            protectable
                .dependents(&request(), resource)
                .await
                .unwrap()
                .is_empty()
        );
    }
}

/// A failing protectable lookup silently shrinks the backup.
#[tokio::test]
async fn a_changed_file_is_read_again() {
    let lab = lab();
    assert_eq!(lab.resources(DIRECTORY).await.len(), 2);
    lab.declare("[[directory]]\nname = \"files\"\npath = \"/srv/files\"");
    assert_eq!(lab.resources(DIRECTORY).await.len(), 1);
    fs::remove_file(lab.path("applications.d/shop.toml")).unwrap();
    assert_eq!(lab.resources(DIRECTORY).await.len(), 0);
}

#[tokio::test]
async fn an_application_that_is_gone_has_not_lost_its_components_only() {
    let lab = lab();
    let gone = Resource::new(APPLICATION, "0d5e7a34-7b3c-4d11-9d42-6f9a3c1b2a10", "gone");
    let directories = &lab.registry.protectables()[DIRECTORY];
    let error = directories.dependents(&request(), &gone).await.unwrap_err();
    assert!(error.message.contains("'gone'"), "{error}");
}

/// A file that another team is just writing.
#[tokio::test]
async fn a_broken_file_is_shown_as_broken_and_hides_no_other() {
    let lab = lab();
    let shop = lab.resource(APPLICATION).await;
    let uploads = lab.resource(DIRECTORY).await;
    let before = lab.resources(SQLITE).await.len();
    fs::write(
        lab.path("applications.d/bad.toml"),
        "name = \"bad\"\nprojects = [\"default\"]\n[[directory]]\nname = \"d\"\npath = ",
    )
    .unwrap();
    let applications = lab.resources(APPLICATION).await;
    let names: Vec<_> = applications.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["shop", "bad"]);
    let reason = applications[1].broken().unwrap();
    assert!(reason.contains("bad.toml: path (line 5): "), "{reason}");
    assert_eq!(lab.resources(SQLITE).await.len(), before);
    let directories = &lab.registry.protectables()[DIRECTORY];
    let of_shop = directories.dependents(&request(), &shop).await.unwrap();
    assert_eq!(of_shop.len(), 2);
    assert!(
        directories
            .show(&request(), &uploads.id)
            .await
            .unwrap()
            .is_some()
    );
    let error = directories
        .dependents(&request(), &applications[1])
        .await
        .unwrap_err();
    assert!(
        error.message.contains("bad.toml: path (line 5): "),
        "{error}"
    );
    let (checkpoint, _) = {
        fs::create_dir_all(lab.path("files")).unwrap();
        lab.declare(&format!(
            "[[directory]]\nname = \"files\"\npath = \"{}\"\n",
            lab.path("files").display()
        ));
        let files = lab.resource(DIRECTORY).await;
        lab.protect(&files).await.unwrap()
    };
    // Once its own file is broken, it is neither protected nor restored, and it is said why.
    let files = lab.resource(DIRECTORY).await;
    lab.declare("[[directory]]\nname = \"files\"\npath = 1\n");
    for error in [
        lab.protect(&files).await.unwrap_err(),
        lab.restore(checkpoint, &files, json!({"restore_to": "x"}))
            .await
            .unwrap_err(),
    ] {
        assert!(
            error.message.contains("shop.toml: path (line 6): "),
            "{error}"
        );
    }
    let stranger = RequestContext::for_project("root", "other", true);
    let seen = lab.registry.protectables()[APPLICATION].list(&stranger);
    assert!(seen.await.unwrap().is_empty());
}
