package document_test

import (
	"io"
	"strings"
	"testing"

	"sluice.dev/sluice/internal/document"
)

// What aliases stand for is bounded before anything is expanded, by nodes and by bytes; what they may stand for is not.
func TestAliases(t *testing.T) {
	text := func(length, times int) string {
		return "a: &a " + strings.Repeat("x", length) + "\nb: [" + strings.TrimSuffix(strings.Repeat("*a, ", times), ", ") + "]\n"
	}
	var nodes strings.Builder
	nodes.WriteString("a0: &a0 [x, x]\n")
	for i := range 25 {
		last, next := string(rune('a'+i)), string(rune('a'+i+1))
		if i == 0 {
			last = "a0"
		}
		nodes.WriteString(next + ": &" + next + " [*" + last + ", *" + last + "]\n")
	}
	for name, c := range map[string]struct{ text, want string }{
		"few":         {text(100, 20), ""},
		"long texts":  {text(100<<10, 100), "its aliases make it more than 8388608 bytes longer"},
		"many nodes":  {nodes.String(), "its aliases expand to more than 600000 nodes"},
		"in itself":   {"a: &a [*a]\n", "its aliases expand to more than 600000 nodes"},
		"merged keys": {"a: &a {k: " + strings.Repeat("x", 1<<20) + "}\nb: [" + strings.Repeat("{<<: *a}, ", 10) + "]\n", "bytes longer"},
	} {
		err := document.Check([]byte(c.text))
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"documents":      {"a.yaml", "a: 1\n---\n# nothing\n---\nb: 2\n", `{"a":1} null {"b":2}`},
		"Windows' lines": {"a.yml", "a: 1\r\n---\r\nb: 2\r\n", `{"a":1} {"b":2}`},
		"JSON":           {"a.JSON", `{"a": 1} {"b": 2}`, `{"a": 1} {"b": 2}`},
	} {
		var all []string
		next := document.Split(c.file, []byte(c.text))
		for {
			one, err := next()
			if err == io.EOF { //nolint:errorlint // as it is documented
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			all = append(all, strings.TrimSpace(string(one)))
		}
		if got := strings.Join(all, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// Errors say where and what would be right, and hold no value: a manifest may be a Secret's.
func TestErrorsHoldNoValues(t *testing.T) {
	for text, want := range map[string]string{
		"token: *hunter2":            "put a value that begins with * in quotes",
		"a: 1\ntoken: !!int hunter2": "cannot decode !!str a value as a !!int",
		"? [hunter2]\n: a":           "a key is no text",
		"token: hunter2: x":          "mapping values are not allowed",
		"token: 1\ntoken: 2":         `line 2: key "token" already set in map`,
	} {
		_, err := document.Split("a.yaml", []byte(text))()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
