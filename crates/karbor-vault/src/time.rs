//! Points in time as restic keeps them: RFC 3339 with up to nine digits.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time, as the kernel gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Time {
    pub(crate) secs: i64,
    pub(crate) nanos: u32,
}

/// The first and last second that RFC 3339 can express (years 0 and 9999).
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

impl Time {
    pub(crate) fn new(secs: i64, nanos: i64) -> Self {
        Self {
            secs: secs.clamp(FIRST, LAST),
            nanos: u32::try_from(nanos.clamp(0, 999_999_999)).unwrap_or(0),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let time = DateTime::parse_from_rfc3339(text).ok()?;
        Some(Self::new(
            time.timestamp(),
            time.timestamp_subsec_nanos().into(),
        ))
    }

    pub(crate) fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.secs, self.nanos).unwrap_or_default()
    }

    pub(crate) fn to_text(self) -> String {
        self.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }
}

impl From<DateTime<Utc>> for Time {
    fn from(time: DateTime<Utc>) -> Self {
        Self::new(time.timestamp(), time.timestamp_subsec_nanos().into())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format!("'{text}' is not a time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive() {
        for (secs, nanos) in [
            (0, 0),
            (-1, 5),
            (1_795_342_837, 123_456_789),
            (i64::MIN, 0),
            (i64::MAX, 1),
        ] {
            let time = Time::new(secs, nanos);
            assert_eq!(Time::parse(&time.to_text()), Some(time));
        }
        assert_eq!(
            Time::parse("2015-01-02T18:10:50.895208559+01:00")
                .unwrap()
                .to_text(),
            "2015-01-02T17:10:50.895208559Z"
        );
        assert_eq!(
            Time::parse("0001-01-01T00:00:00Z").unwrap().secs,
            -62_135_596_800
        );
    }
}
