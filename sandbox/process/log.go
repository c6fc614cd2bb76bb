package process

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

const (
	quotedBytes = 8 << 10
	quotedLines = 15
)

// quoteLog renders the last lines of a log for the end of an error message, or
// nothing when there are none.
func quoteLog(path string) string {
	lines := lastLines(path)
	if len(lines) == 0 {
		return "; its log " + path + " is empty"
	}
	return fmt.Sprintf("; the end of %s:\n%s", path, bytes.Join(lines, []byte("\n")))
}

func lastLines(path string) [][]byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > quotedBytes {
		_, _ = f.Seek(-quotedBytes, io.SeekEnd) // from the start is fine too
	}
	text, _ := io.ReadAll(io.LimitReader(f, quotedBytes))
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil
	}
	lines := bytes.Split(text, []byte("\n"))
	return lines[max(0, len(lines)-quotedLines):]
}
