// Lists products, sells one, repeats the sale, and handles an error, with a client generated from the bridge's OpenAPI document.
//
//     pip install openapi-generator-cli # and a Java runtime
//     openapi-generator-cli generate --config generator.yaml --input-spec ../../../openapi/openapi.json --output generated
//
// The client needs what generated/pom.xml lists: Jackson with its module for dates, and the annotations. BRIDGE_URL is the
// bridge's address, BRIDGE_TOKEN a token.

import bridge.client.ApiClient;
import bridge.client.ApiException;
import bridge.client.JSON;
import bridge.client.api.CatalogueApi;
import bridge.client.api.PaymentsApi;
import bridge.client.model.PayItems;
import bridge.client.model.PaymentState;
import bridge.client.model.Problem;
import bridge.client.model.ProblemCode;
import bridge.client.model.Product;
import bridge.client.model.SoldProduct;
import bridge.client.model.SpelledId;
import com.fasterxml.jackson.databind.MapperFeature;
import java.time.Duration;
import java.util.List;
import java.util.UUID;

public final class Sell {
  private static final String INSTANCE = "demo";
  private static final long POINT_OF_SALE = 1;

  private final ApiClient client = new ApiClient();
  private final PaymentsApi payments;

  private Sell() {
    // Or a number would be taken for a string too, and which of the spellings of a `SpelledCount` it is would not be known.
    client.setObjectMapper(client.getObjectMapper().configure(MapperFeature.ALLOW_COERCION_OF_SCALARS, false));
    client.updateBaseUri(System.getenv("BRIDGE_URL"));
    // The mapper that the client begins with takes a number for a string too, and then cannot tell the spellings apart.
    client.setObjectMapper(JSON.getDefault().getMapper());
    client.setReadTimeout(Duration.ofSeconds(20));
    client.setRequestInterceptor(
        request -> request.header("Authorization", "Bearer " + System.getenv("BRIDGE_TOKEN")));
    payments = new PaymentsApi(client);
  }

  /** How a sale ended: booked, perhaps by an earlier request, or a problem. */
  private record Outcome(boolean repeated, Problem problem) {}

  /** The problem document of an error. Throws the error where it has none: a failed connection, a proxy's answer. */
  private Problem problem(ApiException error) throws Exception {
    if (error.getResponseBody() == null) {
      throw error;
    }
    return client.getObjectMapper().readValue(error.getResponseBody(), Problem.class);
  }

  /** Books a sale once: repeats with the same key while that is safe and may succeed. */
  private Outcome sell(String key, PayItems sale) throws Exception {
    for (;;) {
      try {
        var answer = payments.payItemsWithHttpInfo(INSTANCE, POINT_OF_SALE, key, sale, null, null);
        return new Outcome(answer.getHeaders().containsKey("idempotent-replayed"), null);
      } catch (ApiException error) {
        Problem problem = problem(error);
        // The outcome is unknown until a late reply arrives or a person settles the payment. Stop repeating.
        if (problem.getCode() == ProblemCode.PAYMENT_OUTCOME_UNKNOWN || !problem.getRetryable()) {
          return new Outcome(false, problem);
        }
        Long seconds = problem.getRetryAfter();
        Thread.sleep(Duration.ofSeconds(seconds == null ? 1 : seconds).toMillis());
      }
    }
  }

  private static void expect(boolean holds, Object said) {
    if (!holds) {
      throw new AssertionError(said);
    }
  }

  private void run() throws Exception {
    CatalogueApi catalogue = new CatalogueApi(client);
    System.out.println("licensed to " + catalogue.getLicense(INSTANCE, null, null, null).getLicense().getName());
    List<Product> products = catalogue.listProducts(INSTANCE, POINT_OF_SALE, null, null, null, null).getProducts();
    for (Product product : products) {
      System.out.println(product.getID() + "  " + product.getProductName() + "  " + product.getPrice().toPlainString());
    }
    Product first = products.get(0);

    String key = UUID.randomUUID().toString();
    PayItems sale = new PayItems().paymentMethod(new SpelledId(1L));
    sale.addProductsItem(new SoldProduct().ID(first.getID()).amount(2L));
    for (boolean again : new boolean[] {false, true}) {
      Outcome sold = sell(key, sale);
      expect(sold.problem() == null && sold.repeated() == again, sold);
    }
    System.out.println("sold two of " + first.getProductName() + ", once, although it was asked for twice");

    var found = payments.listPayments(INSTANCE, key, null, null, null, null, null, null, null).getPayments();
    expect(found.size() == 1 && found.get(0).getState() == PaymentState.BOOKED, found);

    sale.setProducts(List.of(new SoldProduct().ID(first.getID()).amount(3L)));
    Problem mistake = sell(key, sale).problem();
    expect(mistake != null && mistake.getCode() == ProblemCode.IDEMPOTENCY_KEY_REUSED, mistake);
    System.out.println("another sale under its key: " + mistake.getStatus() + " " + mistake.getCode());
  }

  public static void main(String[] arguments) throws Exception {
    new Sell().run();
  }
}
