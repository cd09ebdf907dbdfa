package output

import "github.com/oddcert/oddcert/parsers/event"

// CommunityID returns the Community ID of the flow between two ends, as records have it.
func CommunityID(transport event.Transport, ends [2]event.Endpoint) string {
	return string(appendCommunityID(nil, &event.Flow{Transport: transport, Endpoints: ends}))
}
