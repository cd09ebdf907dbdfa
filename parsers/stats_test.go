package parsers

import (
	"reflect"
	"testing"
)

// TestStatsAdd adds every counter, whichever there are.
func TestStatsAdd(t *testing.T) {
	var a, b Stats
	fill := func(s *Stats, k uint64) {
		v := reflect.ValueOf(s).Elem()
		for i := range v.NumField() {
			switch f := v.Field(i); f.Kind() {
			case reflect.Uint64:
				f.SetUint(k * uint64(i+1))
			case reflect.Array:
				for j := range f.Len() {
					f.Index(j).SetUint(k * uint64(i+j+1))
				}
			default:
				t.Fatalf("%s is a %v", v.Type().Field(i).Name, f.Kind())
			}
		}
	}
	fill(&a, 1)
	fill(&b, 2)
	a.Add(b)
	if fill(&b, 3); a != b {
		t.Errorf("%+v, want %+v", a, b)
	}
}
