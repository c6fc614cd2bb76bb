package apitest

import "testing"

const gitSync = `
apiVersion: sluice.dev/v1
kind: GitSync
metadata: {name: bookinfo}
spec:
  url: https://git.example.com/team/bookinfo.git
  ref: {branch: main}
`

func TestGitSyncRules(t *testing.T) {
	checkRules(t, gitsyncs, gitSync, []rule{
		{name: "url is needed", refuses: `url: null`, field: "spec.url", message: "Required value"},
		{
			name: "url is a URL", accepts: `url: "http://127.0.0.1:8080/team/bookinfo.git"`,
			refuses: `url: "git.example.com/team"`, field: "spec.url", message: "must be an https or http URL",
		},
		{name: "url is no file", refuses: `url: "file:///etc"`, field: "spec.url", message: "must be an https or http URL"},
		{name: "url is no transport helper", refuses: `url: "ext::sh -c date"`, field: "spec.url", message: "must be an https or http URL"},
		{name: "url is no option", refuses: `url: "--upload-pack=date"`, field: "spec.url", message: "must be an https or http URL"},
		{name: "url has a host", refuses: `url: "https:///team"`, field: "spec.url", message: "must be an https or http URL"},
		{name: "url is not ssh", refuses: `url: "ssh://git@example.com/team"`, field: "spec.url", message: "ssh does not work yet"},
		{name: "url is not ssh, short form", refuses: `url: "git@example.com:team/x.git"`, field: "spec.url", message: "ssh does not work yet"},
		{
			name: "url has no credentials", accepts: `url: "https://git.example.com/@team/x.git"`,
			refuses: `url: "https://me:secret@git.example.com/x.git"`, field: "spec.url", message: "must not hold credentials",
		},
		{
			name: "one ref", accepts: `ref: {branch: null, tag: v1.2.3}`,
			refuses: `ref: {tag: v1.2.3}`, field: "spec.ref", message: "exactly one of branch, tag, semver and commit",
		},
		{name: "a ref at all", accepts: `ref: null`, refuses: `ref: {branch: null}`, field: "spec.ref", message: "exactly one of"},
		{
			name: "branch", accepts: `ref: {branch: release/1.4}`,
			refuses: `ref: {branch: "a..b"}`, field: "spec.ref.branch", message: "must be the name of a branch",
		},
		{name: "branch without a backslash", refuses: `ref: {branch: 'a\b'}`, field: "spec.ref.branch", message: "must be the name of a branch"},
		{name: "branch without spaces", refuses: `ref: {branch: 'a b'}`, field: "spec.ref.branch", message: "must be the name of a branch"},
		{name: "branch that is an option", refuses: `ref: {branch: '-a'}`, field: "spec.ref.branch", message: "must be the name of a branch"},
		{name: "tag", accepts: `ref: {branch: null, tag: v1}`, refuses: `ref: {branch: null, tag: "v1^{}"}`, field: "spec.ref.tag", message: "must be the name of a tag"},
		{
			name: "commit", accepts: `ref: {branch: null, commit: "0123456789012345678901234567890123456789"}`,
			refuses: `ref: {branch: null, commit: 0123abc}`, field: "spec.ref.commit", message: "full SHA-1",
		},
		{
			name: "path", accepts: `path: ./deploy/..prod/`,
			refuses: `path: deploy/../../etc`, field: "spec.path", message: "must be a path inside the repository",
		},
		{name: "path is relative", accepts: `path: ""`, refuses: `path: /etc`, field: "spec.path", message: "must be a path inside the repository"},
		{
			name: "interval is a duration", accepts: `interval: 1m30s`,
			refuses: `interval: soon`, field: "spec.interval", message: "must be a duration",
		},
		{name: "interval is not too short", accepts: `interval: 1s`, refuses: `interval: 999ms`, field: "spec.interval", message: "must be at least 1s"},
		{
			name: "serviceAccountName", accepts: `serviceAccountName: bookinfo-deployer`,
			refuses: `serviceAccountName: Deployer`, field: "spec.serviceAccountName", message: "must be the name of an object",
		},
		{name: "prune", accepts: `prune: true`, refuses: `prune: "yes"`, field: "spec.prune", message: "must be of type boolean"},
		{name: "secretRef", accepts: `secretRef: {name: git}`, refuses: `secretRef: {}`, field: "spec.secretRef.name", message: "Required value"},
		{
			name: "webhook", accepts: `webhook: {provider: generic, secretRef: {name: hook}}`,
			refuses: `webhook: {provider: gogs, secretRef: {name: hook}}`, field: "spec.webhook.provider", message: "must be one of github, gitlab",
		},
		{name: "webhook's secret", accepts: `webhook: {provider: gitlab, secretRef: {name: hook}}`, refuses: `webhook: {provider: github}`, field: "spec.webhook.secretRef", message: "Required value"},
		{name: "secretRef's name", refuses: `secretRef: {name: a/b}`, field: "spec.secretRef.name", message: "must be the name of an object"},
	})
}

func TestGitSyncRefusesWhatDoesNotWorkYet(t *testing.T) {
	checkRules(t, gitsyncs, gitSync, []rule{
		{name: "verify", refuses: `verify: {secretRef: {name: keys}}`, field: "spec.verify", message: "verify does not work yet"},
		{
			name: "commitStatus", refuses: `commitStatus: {provider: github, secretRef: {name: token}}`,
			field: "spec.commitStatus", message: "commitStatus does not work yet",
		},
		{name: "semver", refuses: `ref: {branch: null, semver: ">=1.0"}`, field: "spec.ref.semver", message: "semver does not work yet"},
	})
}
