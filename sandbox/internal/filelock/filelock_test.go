package filelock

import (
	"errors"
	"path/filepath"
	"testing"
)

func TestTryIsExclusiveUntilRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Try(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Try(path); !errors.Is(err, ErrHeld) {
		t.Errorf("second Try: %v, want ErrHeld", err)
	}
	first.Release()
	second, err := Try(path)
	if err != nil {
		t.Fatalf("Try after Release: %v", err)
	}
	second.Release()
}

func TestTryOnMissingFolder(t *testing.T) {
	if _, err := Try(filepath.Join(t.TempDir(), "missing", "lock")); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("Try in a missing folder: %v, want an error that is not ErrHeld", err)
	}
}
