//! Flows: the planner (resource graph x operation -> hook tasks) and the journalled executor.
