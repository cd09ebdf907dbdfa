// Package sigmatest runs pySigma, the reference implementation of Sigma, for
// tests. Where it cannot be had the test is skipped, with a line that begins
// with SKIP-PYSIGMA.
package sigmatest

import (
	"testing"

	"github.com/oddcert/oddcert/sensor/pythontest"
)

// Reader are the packages that read rules.
var Reader = []string{"pysigma==2.0.1"}

// Converter are the packages that convert rules to queries of Elasticsearch.
// Their pySigma is older, as the backend has it so.
var Converter = []string{"pysigma==1.5.1", "pysigma-backend-elasticsearch==2.1.1"}

// Run is [pythontest.Run] with the given packages, one of the lists above.
func Run(t testing.TB, packages []string, program string, in, out any) {
	t.Helper()
	pythontest.Run(t, "SKIP-PYSIGMA", packages, program, in, out)
}
