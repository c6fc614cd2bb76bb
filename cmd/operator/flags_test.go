package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"k8s.io/apimachinery/pkg/runtime"
)

func TestDefaults(t *testing.T) {
	f, err := parseFlags(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if f.propagationDelay != 2*time.Second || f.settle != time.Second || f.defaultServiceAccount != "default" || f.leaderElect {
		t.Errorf("defaults %+v", f)
	}
}

func TestRepeatedFlags(t *testing.T) {
	f, err := parseFlags([]string{"--probe-allow=a:80", "--probe-allow", "*.b", "--watch-namespace=x", "--watch-namespace=y"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]list{{"a:80", "*.b"}, {"x", "y"}}, []list{f.probeAllow, f.namespaces}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	options := managerOptions(f, runtime.NewScheme(), zap.New(zap.WriteTo(io.Discard)))
	if _, ok := options.Cache.DefaultNamespaces["y"]; !ok || len(options.Cache.DefaultNamespaces) != 2 {
		t.Errorf("the cache is bound to %v, want x and y", options.Cache.DefaultNamespaces)
	}
}

func TestWrongFlagsAreNamed(t *testing.T) {
	for args, want := range map[string]string{
		"--propagation-delay=-1s":         "propagation-delay",
		"--max-concurrent-reconciles=0":   "max-concurrent-reconciles",
		"--prometheus-url=localhost:9090": "prometheus-url",
		"--log-format=xml":                "json or console",
		"--log-level=loud":                "--log-level=loud",
		"--probe-allow=":                  "probe-allow",
		"now":                             `"now"`,
	} {
		_, err := parseFlags([]string{args}, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that names %s", args, err, want)
		}
	}
}

func TestAddressesOfAPIServer(t *testing.T) {
	for host, want := range map[string]string{"https://10.0.0.1:443": "10.0.0.1", "https://[fd00::1]:6443": "fd00::1"} {
		got := addressesOf(host)
		if len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: %v, want %s", host, got, want)
		}
	}
}
