// Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI document.
//
//	pip install openapi-generator-cli # and a Java runtime
//	openapi-generator-cli generate --config generator.yaml --input-spec ../../../openapi/openapi.json --output generated
//	go mod tidy
//	BRIDGE_URL=http://127.0.0.1:8080 BRIDGE_TOKEN=… go run .
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	concertpos "sell/generated"
)

const instance, pointOfSale = "demo", 1

// The problem that an error of the client is, or the error itself where it is none: a failed connection, a proxy's answer.
func problemOf(err error) (concertpos.Problem, error) {
	var failed *concertpos.GenericOpenAPIError
	if errors.As(err, &failed) {
		if problem, is := failed.Model().(concertpos.Problem); is {
			return problem, nil
		}
	}
	return concertpos.Problem{}, err
}

// Books a sale once: repeats with the same key while that is safe and may succeed. Says whether the reply repeats an earlier one.
func sell(ctx context.Context, bridge *concertpos.APIClient, key string, sale concertpos.PayItems) (
	reply *concertpos.PayItem, repeated bool, problem concertpos.Problem, err error) {
	for {
		reply, answer, failed := bridge.PaymentsAPI.PayItems(ctx, instance, pointOfSale).
			IdempotencyKey(key).PayItems(sale).Execute()
		if failed == nil {
			return reply, answer.Header.Get("Idempotent-Replayed") == "true", problem, nil
		}
		if problem, err = problemOf(failed); err != nil {
			return nil, false, problem, err
		}
		// The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
		if problem.Code == concertpos.PROBLEMCODE_PAYMENT_OUTCOME_UNKNOWN || !problem.Retryable {
			return nil, false, problem, nil
		}
		pause := int64(1)
		if problem.RetryAfter != nil {
			pause = *problem.RetryAfter
		}
		time.Sleep(time.Duration(pause) * time.Second)
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func expect(holds bool, said ...any) {
	if !holds {
		log.Fatal(said...)
	}
}

func main() {
	settings := concertpos.NewConfiguration()
	settings.Servers = concertpos.ServerConfigurations{{URL: os.Getenv("BRIDGE_URL")}}
	settings.HTTPClient = &http.Client{Timeout: 20 * time.Second}
	bridge := concertpos.NewAPIClient(settings)
	ctx := context.WithValue(context.Background(), concertpos.ContextAccessToken, os.Getenv("BRIDGE_TOKEN"))

	licence, _, err := bridge.CatalogueAPI.GetLicense(ctx, instance).Execute()
	must(err)
	fmt.Println("licensed to", licence.License.Name)
	listed, _, err := bridge.CatalogueAPI.ListProducts(ctx, instance, pointOfSale).Execute()
	must(err)
	for _, product := range listed.Products {
		// The shortest decimal of a float64 is the gateway's price, exact to the digit.
		fmt.Printf("%d  %s  %s\n", product.ID, product.ProductName, strconv.FormatFloat(product.Price, 'f', -1, 64))
	}
	first := listed.Products[0]

	random := make([]byte, 16)
	_, err = rand.Read(random)
	must(err)
	key := fmt.Sprintf("%x", random)
	cash := int64(1)
	of := func(amount int64) concertpos.PayItems {
		product := concertpos.SoldProduct{ID: first.ID, Amount: amount}
		return *concertpos.NewPayItems(concertpos.Int64AsSpelledId(&cash), []concertpos.SoldProduct{product})
	}
	for _, again := range []bool{false, true} {
		reply, repeated, problem, err := sell(ctx, bridge, key, of(2))
		must(err)
		expect(reply != nil && repeated == again, problem, repeated)
	}
	fmt.Printf("sold two of %s, once, although it was asked for twice\n", first.ProductName)

	found, _, err := bridge.PaymentsAPI.ListPayments(ctx, instance).IdempotencyKey(key).Execute()
	must(err)
	expect(len(found.Payments) == 1 && found.Payments[0].State == concertpos.PAYMENTSTATE_BOOKED, found)

	_, _, mistake, err := sell(ctx, bridge, key, of(3))
	must(err)
	expect(mistake.Code == concertpos.PROBLEMCODE_IDEMPOTENCY_KEY_REUSED, mistake)
	fmt.Println("another sale under its key:", mistake.Status, mistake.Code)
}
