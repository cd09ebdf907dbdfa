package kafka

import (
	"bytes"
	"encoding/json"
	"testing"
)

func TestKey(t *testing.T) {
	for _, test := range []struct{ record, want string }{
		{`{"destination":{"ip":"192.0.2.1","port":443}}`, "192.0.2.1:443"},
		{`{"a":"\"destination\":{","b":{"destination":{"ip":"192.0.2.9","port":1}},"destination":{"ip":"192.0.2.1","port":443,"geo":{"x":[1,{}]}},"z":1}`, "192.0.2.1:443"},
		{`{"destination":{"domain":"a.example","ip":"2001:db8::1","mac":"00-00-5E-00-53-01","port":8443}}`, "[2001:db8::1]:8443"},
		{`{"destination":{"mac":"00-00-5E-00-53-01"}}`, "00-00-5E-00-53-01"},
		{`{"destination":{"ip":"192.0.2.1"}}`, "192.0.2.1"},
		{` { "labels" : {"x":"}"} , "n":[1,"]"], "destination" : { "ip" : "192.0.2.1" , "port" : 443 } }`, "192.0.2.1:443"},
		{`{"oddcert":{"stats":{}}}`, ""},
		{`{"destination":{}}`, ""},
		{`{"destination":"somewhere"}`, ""},
		{`{`, ""}, {``, ""}, {`{"destination"`, ""}, {`{"destination":`, ""}, {`{"x\`, ""}, {`[1]`, ""},
	} {
		if got := string(key([]byte(test.record))); got != test.want {
			t.Errorf("key of %s is %q, want %q", test.record, got, test.want)
		}
	}
}

// FuzzMember compares with the decoder of the standard library.
func FuzzMember(f *testing.F) {
	for _, s := range []string{
		`{"destination":{"ip":"192.0.2.1","port":443}}`, `{"a":"\\\"","destination":[1,{"b":"]"}],"c":null}`,
		`{"a":{"destination":1},"b":-1e3}`, `{"destination":true}`, `[]`, `{"a":1,`, `"destination"`, `{"destination" : "}" }`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := member(b, "destination")
		key(b)
		if !json.Valid(b) || bytes.Contains(b, []byte(`\u`)) { // names are compared as they are written
			return
		}
		var want json.RawMessage
		d := json.NewDecoder(bytes.NewReader(b))
		if start, err := d.Token(); err == nil && start == json.Delim('{') {
			for d.More() && want == nil {
				name, err := d.Token()
				var value json.RawMessage
				if err == nil {
					err = d.Decode(&value)
				}
				if err != nil {
					t.Fatal(err)
				}
				if name == "destination" {
					want = value
				}
			}
		}
		if string(got) != string(want) {
			t.Fatalf("the destination in %q is %q, want %q", b, got, want)
		}
	})
}

func BenchmarkKey(b *testing.B) {
	r := record(0, 39).JSON
	b.SetBytes(int64(len(r)))
	b.ReportAllocs()
	for b.Loop() {
		key(r)
	}
}
