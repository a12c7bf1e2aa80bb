//! Lists: filters, order and pages, the same for every table.

/// Direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// What to list. The default: everything of every project, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this project's; `None` = all tenants.
    pub project: Option<String>,
    /// Column and value. A column given twice means any of the values. Unknown columns are
    /// ignored, as the original ignored them for plans. Name and description match as plain
    /// substrings, all others exactly.
    pub filters: Vec<(String, String)>,
    /// Id of the last record of the page before.
    pub marker: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
    /// Leave out so many at the start.
    pub offset: u64,
    /// Columns to sort by; `created_at` and `id` always follow, so that the order is total.
    pub sort: Vec<(String, Direction)>,
}

impl ListQuery {
    /// Everything of one project.
    #[must_use]
    pub fn project(project: impl Into<String>) -> Self {
        Self {
            project: Some(project.into()),
            ..Self::default()
        }
    }
}
