// Package document takes manifest files apart into their documents, as JSON and strictly: a key that stands twice, aliases that
// explode and a document that hides from the splitting are errors.
//
// What the documents mean it does not know, nor where the files come from.
package document
