package load

// Since is what was counted after earlier, an older count of the same load. Latencies are those of the difference too.
func (c Counts) Since(earlier Counts) Counts {
	d := c.clone()
	d.Outcome = c.Outcome.minus(earlier.Outcome)
	for version, n := range earlier.ByVersion {
		d.ByVersion[version] -= n
	}
	for status, n := range earlier.ByStatus {
		d.ByStatus[status] -= n
	}
	for user, o := range earlier.ByUser {
		d.ByUser[user] = d.ByUser[user].minus(o)
	}
	for user, versions := range earlier.UserVersions {
		for version, n := range versions {
			d.UserVersions[user][version] -= n
		}
	}
	d.RatingsUnavailable -= earlier.RatingsUnavailable
	d.Skipped -= earlier.Skipped
	d.latencies = d.latencies[len(earlier.latencies):]
	if d.Failed == 0 {
		d.LastError = nil
	}
	return d
}

func (o Outcome) minus(other Outcome) Outcome {
	return Outcome{Total: o.Total - other.Total, Failed: o.Failed - other.Failed}
}
