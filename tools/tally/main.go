package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

func main() {
	var sum tally
	for _, name := range os.Args[1:] {
		if err := sum.addFile(name); err != nil {
			fmt.Fprintln(os.Stderr, "tally:", err)
			os.Exit(1)
		}
	}
	sum.print(os.Stdout)
	if len(sum.failed) > 0 || sum.passed == 0 {
		os.Exit(1)
	}
}

// tally counts tests, subtests included.
type tally struct {
	passed, skipped int
	// failed holds the package and name of each failed test, and the package alone of one that failed without a test.
	failed []string
}

// event is a line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action, Package, Test string
}

func (t *tally) addFile(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if err := t.add(file); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// add counts the events of one run.
func (t *tally) add(events io.Reader) error {
	failedIn := map[string]bool{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		switch {
		case e.Action == "fail" && e.Test != "":
			t.failed = append(t.failed, e.Package+" "+e.Test)
			failedIn[e.Package] = true
		case e.Action == "fail" && !failedIn[e.Package]:
			t.failed = append(t.failed, e.Package)
		case e.Action == "pass" && e.Test != "":
			t.passed++
		case e.Action == "skip" && e.Test != "":
			t.skipped++
		}
	}
	slices.Sort(t.failed)
	return nil
}

func (t *tally) print(out io.Writer) {
	for _, name := range t.failed {
		fmt.Fprintln(out, "FAILED", name)
	}
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", t.passed, len(t.failed), t.skipped)
}
