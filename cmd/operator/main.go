package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func main() {
	// A second signal ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	out := quiet()
	if err := run(ctx, os.Args[1:], out); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "operator:", err)
		}
		os.Exit(1)
	}
}

// quiet returns where the operator logs to, and takes it away from libraries: at each rendering kustomize prints to os.Stderr that a field
// is deprecated, without a word on whose. It is called before anything else runs. What ends the process is printed all the same.
func quiet() *os.File {
	out := os.Stderr
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stderr = null
	}
	return out
}

// run works until ctx ends, and then finishes what is under way, for 25 seconds at most.
func run(ctx context.Context, args []string, out io.Writer) error {
	f, err := parseFlags(args, out)
	if err != nil {
		return err
	}
	logger, err := newLogger(f, out)
	if err != nil {
		return err
	}
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	mgr, err := newManager(f, logger)
	if err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the controllers: %w", err)
	}
	return nil
}

func newLogger(f *flags, out io.Writer) (logr.Logger, error) {
	level, err := zapcore.ParseLevel(f.logLevel)
	if err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level=%s: debug, info or error", f.logLevel)
	}
	encoder := zap.JSONEncoder()
	if f.logFormat == "console" {
		encoder = zap.ConsoleEncoder()
	}
	return zap.New(encoder, zap.Level(level), zap.StacktraceLevel(zapcore.PanicLevel), zap.WriteTo(out)), nil
}
