//! Local tokens and the file of the first one.

use std::os::unix::fs::PermissionsExt as _;

use karbor_api::{
    REVOCATION_LAG, create_token, ensure_admin_token, list_tokens, revoke_token, token_hash,
};
use karbor_model::ErrorKind;

use crate::app::{PROJECT, app};

#[tokio::test]
async fn only_the_hash_is_kept() {
    let app = app().await;
    let made = create_token(&app.db.tokens(), "u", "p", false)
        .await
        .unwrap();
    assert!(made.secret.len() > 64);
    assert_eq!(made.record.hash, token_hash(&made.secret));
    assert!(!format!("{made:?}").contains(&made.secret));
    let all = format!("{:?}", list_tokens(&app.db.tokens()).await.unwrap());
    assert!(all.contains(&made.record.hash) && !all.contains(&made.secret));
    assert_ne!(
        create_token(&app.db.tokens(), "u", "p", false)
            .await
            .unwrap()
            .secret,
        made.secret
    );
    assert!(
        create_token(&app.db.tokens(), "", "p", false)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_revoked_token_is_forgotten_in_time() {
    let app = app().await;
    let uri = format!("/v1/{PROJECT}/plans");
    let status = async || {
        app.raw("GET", &uri, Some(&app.member), Vec::new())
            .await
            .status
    };
    assert_eq!(status().await, 200);
    let id = token_hash(&app.member)[..12].to_owned();
    assert_eq!(
        revoke_token(&app.db.tokens(), &id).await.unwrap().user_id,
        "demo"
    );
    app.clock.turn(REVOCATION_LAG);
    assert_eq!(status().await, 401);
    assert_eq!(
        revoke_token(&app.db.tokens(), &id).await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        revoke_token(&app.db.tokens(), "").await.unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn the_first_token_is_written_for_the_owner_alone() {
    let app = app().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    assert!(
        ensure_admin_token(&app.db.tokens(), &path, PROJECT)
            .await
            .unwrap()
    );
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let secret = std::fs::read_to_string(&path).unwrap();
    let uri = format!("/v1/{PROJECT}/os-services");
    let answer = app.raw("GET", &uri, Some(secret.trim()), Vec::new()).await;
    assert_eq!(answer.status, 200);

    // It is kept, also when somebody opened it to others.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        !ensure_admin_token(&app.db.tokens(), &path, PROJECT)
            .await
            .unwrap()
    );
    assert_eq!(
        (mode(), std::fs::read_to_string(&path).unwrap()),
        (0o600, secret.clone())
    );

    // A token that the database does not know any more is replaced.
    revoke_token(&app.db.tokens(), &token_hash(secret.trim()))
        .await
        .unwrap();
    assert!(
        ensure_admin_token(&app.db.tokens(), &path, PROJECT)
            .await
            .unwrap()
    );
    assert_ne!(std::fs::read_to_string(&path).unwrap(), secret);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let app = app().await;
    let error = ensure_admin_token(&app.db.tokens(), "/nowhere/at/all/token".as_ref(), PROJECT)
        .await
        .unwrap_err();
    assert!(error.message.contains("/nowhere/at/all/token"), "{error}");
}
