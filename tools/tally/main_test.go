package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	runs := []string{
		`{"Action":"start","Package":"a"}
		{"Action":"run","Package":"a","Test":"TestX"}
		{"Action":"pass","Package":"a","Test":"TestX"}
		{"Action":"skip","Package":"a","Test":"TestY"}
		{"Action":"pass","Package":"a"}
		{"Action":"skip","Package":"empty"}`,
		`{"Action":"fail","Package":"b","Test":"TestZ/sub"}
		{"Action":"fail","Package":"b","Test":"TestZ"}
		{"Action":"fail","Package":"b"}
		{"ImportPath":"c","Action":"build-fail"}
		{"Action":"fail","Package":"c"}`,
	}
	var sum tally
	for _, run := range runs {
		if err := sum.add(strings.NewReader(run)); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	sum.print(&out)
	const want = "FAILED b TestZ\nFAILED b TestZ/sub\nFAILED c\n\n1 passed, 3 failed, 1 skipped\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestTallyOfTruncatedRun(t *testing.T) {
	var sum tally
	if err := sum.add(strings.NewReader(`{"Action":"pa`)); err == nil {
		t.Error("a truncated file was read without an error")
	}
}
