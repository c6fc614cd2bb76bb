package cli_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clocktesting "k8s.io/utils/clock/testing"

	"sluice.dev/sluice/internal/cli"
)

var update = flag.Bool("update", false, "write the goldens anew")

// TestGoldens runs the command line in each testdata/NAME.cmd, offline, and compares exit code, output and errors with
// testdata/NAME.out. A line that begins with "<" is a file for standard input.
func TestGoldens(t *testing.T) {
	offline(t)
	commands, err := filepath.Glob("testdata/*.cmd")
	if err != nil || len(commands) == 0 {
		t.Fatalf("%d commands, error %v", len(commands), err)
	}
	for _, command := range commands {
		name := strings.TrimSuffix(filepath.Base(command), ".cmd")
		t.Run(name, func(t *testing.T) {
			got := run(t, command)
			golden := filepath.Join("testdata", name+".out")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
		})
	}
}

// offline takes away all that could lead to a cluster.
func offline(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("COLUMNS", "120")
}

// TestInitPassesLint: what init writes has no finding beside the files that it was made from.
func TestInitPassesLint(t *testing.T) {
	offline(t)
	for _, c := range []struct {
		service string
		files   []string
	}{
		{"reviews", []string{"-f", "../../examples/adopt/mesh.yaml", "-f", "testdata/service/reviews.yaml"}},
		{"shop", []string{"-f", "testdata/tracks"}},
		{"redis", []string{"-f", "testdata/redis"}},
		{"on", []string{"-f", "testdata/odd"}},
	} {
		text, problems, code := execute(nil, append([]string{"init", c.service}, c.files...)...)
		if code != 0 {
			t.Fatalf("init %s: exit code %d: %s", c.service, code, problems)
		}
		file := filepath.Join(t.TempDir(), "rollout.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if found, problems, code := execute(nil, append([]string{"lint", "-f", file}, c.files...)...); code != 0 || found != "" {
			t.Errorf("lint of init %s: exit code %d\n%s%s", c.service, code, found, problems)
		}
	}
}

// execute runs a command line, and returns what it prints, its errors and its exit code.
func execute(in io.Reader, args ...string) (out, errOut string, code int) {
	var stdout, stderr bytes.Buffer
	now := clocktesting.NewFakePassiveClock(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	code = cli.Run(context.Background(), args, genericiooptions.IOStreams{In: in, Out: &stdout, ErrOut: &stderr}, now)
	return stdout.String(), stderr.String(), code
}

func run(t *testing.T, command string) string {
	t.Helper()
	raw, err := os.ReadFile(command)
	if err != nil {
		t.Fatal(err)
	}
	var in bytes.Buffer
	var args []string
	for line := range strings.Lines(string(raw)) {
		if file, ok := strings.CutPrefix(strings.TrimSpace(line), "<"); ok {
			content, err := os.ReadFile(strings.TrimSpace(file))
			if err != nil {
				t.Fatal(err)
			}
			in.Write(content)
			continue
		}
		args = append(args, strings.Fields(line)...)
	}
	text, problems, code := execute(&in, args...)
	if problems != "" {
		text += "--- standard error\n" + problems
	}
	return text + fmt.Sprintf("--- exit code %d\n", code)
}
