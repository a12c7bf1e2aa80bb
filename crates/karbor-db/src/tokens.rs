//! API tokens. Only their hashes are kept.

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, QueryResult,
    sea_query::{Alias, Expr, ExprTrait, Order, Query},
};

use crate::{
    Db, DbError, TokenStore,
    row::{Row, json_text},
};

const TOKEN: &[&str] = &[
    "hash",
    "user_id",
    "project_id",
    "roles",
    "is_admin",
    "created_at",
];

/// Whom a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Hash of the token, as the caller computed it.
    pub hash: String,
    /// The user.
    pub user_id: String,
    /// The project it is good for.
    pub project_id: String,
    /// Roles in that project.
    pub roles: Vec<String>,
    /// May act on every project.
    pub is_admin: bool,
    /// When it was made, UTC.
    pub created_at: DateTime<Utc>,
}

impl TokenStore {
    /// Stores a token's hash and whom it stands for.
    ///
    /// # Errors
    /// [`DbError::Conflict`] when the hash is there already.
    pub async fn create(
        &self,
        hash: &str,
        user: &str,
        project: &str,
        roles: &[String],
        is_admin: bool,
    ) -> Result<TokenRecord, DbError> {
        let created_at = self.db.now();
        let insert = Query::insert()
            .into_table(Alias::new("api_tokens"))
            .columns(TOKEN.iter().copied())
            .values([
                hash.into(),
                user.into(),
                project.into(),
                json_text(&roles)?.into(),
                is_admin.into(),
                self.db.time(created_at).into(),
            ])
            .map_err(|error| DbError::Internal(error.to_string()))?
            .take();
        self.db.execute(&insert).await?;
        Ok(TokenRecord {
            hash: hash.to_owned(),
            user_id: user.to_owned(),
            project_id: project.to_owned(),
            roles: roles.to_vec(),
            is_admin,
            created_at,
        })
    }

    /// Whom the token with this hash stands for; `None` if nobody.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn find(&self, hash: &str) -> Result<Option<TokenRecord>, DbError> {
        let select = Query::select()
            .columns(TOKEN.iter().copied())
            .from("api_tokens")
            .and_where(Expr::col("hash").eq(hash))
            .take();
        let row = self.db.read().query_one(&select).await?;
        row.map(|row| self.db.token_from(&row)).transpose()
    }

    /// Every token, oldest first.
    ///
    /// # Errors
    /// [`DbError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<TokenRecord>, DbError> {
        let select = Query::select()
            .columns(TOKEN.iter().copied())
            .from("api_tokens")
            .order_by("created_at", Order::Asc)
            .order_by("hash", Order::Asc)
            .take();
        let rows = self.db.read().query_all(&select).await?;
        rows.iter().map(|row| self.db.token_from(row)).collect()
    }

    /// Forgets a token.
    ///
    /// # Errors
    /// [`DbError::NotFound`].
    pub async fn delete(&self, hash: &str) -> Result<(), DbError> {
        let delete = Query::delete()
            .from_table(Alias::new("api_tokens"))
            .and_where(Expr::col("hash").eq(hash))
            .take();
        if self.db.execute(&delete).await? == 0 {
            return Err(DbError::not_found("Token", hash));
        }
        Ok(())
    }
}

impl Db {
    fn token_from(&self, row: &QueryResult) -> Result<TokenRecord, DbError> {
        let row = Row::new(row, self.backend(), "api_tokens", TOKEN);
        Ok(TokenRecord {
            hash: row.text(0)?,
            user_id: row.text(1)?,
            project_id: row.text(2)?,
            roles: row.json(3)?,
            is_admin: row.flag(4)?,
            created_at: row.time(5)?,
        })
    }
}
