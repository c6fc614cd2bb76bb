package draft

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "sluice.dev/sluice/api/v1"
)

// yaml is the manifest with comments.
func (f *found) yaml() string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# Made from what namespace %s has. Look at steps and limits, then put it beside your other manifests.", f.Namespace)
	if f.doubts != "" {
		line("# To be mended before a run can go through: %s", f.doubts)
	}
	line("apiVersion: sluice.dev/v1\nkind: Rollout\nmetadata:\n  name: %s\nspec:\n  host: %s", quote(f.Service), quote(f.Service))
	if f.port > 0 {
		line("  port: {number: %d} # one of several ports of the Service", f.port)
	}
	if f.protocol != v1.ProtocolHTTP {
		line("  protocol: %s", f.protocol)
	}
	f.writeVersions(line)
	f.writeRoutes(line)
	f.writeSteps(line)
	return out.String()
}

func (f *found) writeVersions(line func(string, ...any)) {
	line("  # The version that should serve all traffic: change this line to roll another one out.")
	line("  version: %s", quote(f.stable))
	if f.guessed {
		line("  # Routes and endpoints do not tell of one version alone that serves: correct this one, and version, if it is another.")
		line("  initialVersion: %s", quote(f.stable))
	}
	for _, v := range f.versions {
		line("  # %s: %s", v.name, strings.Join(v.seen, ", "))
	}
	listed := f.listed()
	if len(listed) == 0 {
		return
	}
	line("  # Pods without a label version. Istio's metrics name them by workload.")
	line("  versions:")
	for _, v := range listed {
		var set []string
		for _, key := range slices.Sorted(maps.Keys(v.Labels)) {
			set = append(set, key+": "+quote(v.Labels[key]))
		}
		line("  - {name: %s, labels: {%s}}", quote(v.Name), strings.Join(set, ", "))
	}
}

func (f *found) writeRoutes(line func(string, ...any)) {
	for _, vs := range f.managed {
		if vs.Created {
			line("  # Nothing routes to %s: a VirtualService %s for the mesh will be made.", f.Service, vs.Name)
			continue
		}
		line("  # Will be managed: %s.", routesOf(vs))
	}
	for _, s := range f.skipped {
		line("  # Will be left alone: %s.", s)
	}
}

func (f *found) writeSteps(line func(string, ...any)) {
	http := f.protocol == v1.ProtocolHTTP
	line("  steps:")
	if http {
		line("  - {name: shadow, mirror: {percentage: 100}, hold: 5m} # copies; users never see the answers. Leave it out where requests are not safe to repeat")
	}
	line("  - {name: some, weight: 5, hold: 5m}")
	line("  - {name: half, weight: 50, hold: 10m}")
	line("  - {name: full, weight: 100, hold: 10m}")
	if !http {
		line("  gates: [] # %s has no error rate: give queries of your own", f.protocol)
		return
	}
	line("  gates: # each is judged over a minute, and three times in a row, before a step ends")
	line("  - {name: errors, metric: errorRate, max: \"1%%\"}")
	line("  - {name: p99, metric: latency, quantile: \"0.99\", max: 500ms}")
}

var plain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

// quote gives what YAML would take for something else than a string in quotes.
func quote(s string) string {
	if !plain.MatchString(s) || slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}, strings.ToLower(s)) {
		return strconv.Quote(s)
	}
	return s
}
