package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/sandbox/bench"
	"sluice.dev/sluice/sandbox/binaries"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	log.SetLogger(logr.Discard())
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return err
	}
	options := bench.Options{DataDir: filepath.Join(root, ".sandbox", "bench"), Out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	sizes := flags.String("n", "1 50 300", "`numbers` of Rollouts")
	rows := flags.String("rows", "P1 P2 P3 P4 P5 P8", "`rows` to measure; P6 and P7 as well, which are for large numbers")
	result := flags.String("json", filepath.Join(root, ".sandbox", "bench.json"), "`file` for the figures as JSON")
	flags.StringVar(&options.Operator, "operator", filepath.Join(root, "bin", "operator"), "the operator's `binary`")
	flags.StringVar(&options.Profiles, "profiles", "", "`folder` for profiles of the operator")
	flags.DurationVar(&options.Idle, "idle", 45*time.Second, "how long the idle operator is watched")
	operatorArgs := flags.String("operator-args", "", "`flags` added to the operator's")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options.Rows, options.OperatorArgs = strings.Fields(*rows), strings.Fields(*operatorArgs)
	for _, size := range strings.Fields(*sizes) {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			return fmt.Errorf("-n: %q is no number of Rollouts", size)
		}
		options.Sizes = append(options.Sizes, n)
	}
	report, err := bench.Run(ctx, options)
	if err != nil {
		return err
	}
	report.Machine, report.Commit, report.Date, report.PropagationDelay = machine(), commit(ctx, root), time.Now().UTC().Truncate(time.Second), "0s"
	if err := save(report, *result); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return report.Table(out)
}

func save(report *bench.Report, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := report.JSON(file); err != nil {
		return err
	}
	return file.Close()
}

// machine in a few words: processors and memory.
func machine() string {
	text := fmt.Sprintf("%s/%s, %d cores", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	raw, err := os.ReadFile("/proc/meminfo")
	if fields := strings.Fields(string(raw)); err == nil && len(fields) > 1 {
		if kib, err := strconv.Atoi(fields[1]); err == nil {
			text += fmt.Sprintf(", %d GiB", (kib+1<<19)>>20)
		}
	}
	return text
}

// commit that the tree is at, with a plus sign if it has changes.
func commit(ctx context.Context, root string) string {
	raw, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty=+", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(raw))
}
