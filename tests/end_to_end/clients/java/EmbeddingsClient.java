import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * The JDK's own HTTP client with its default settings, under which it offers HTTP/2 with every request in plain text, as
 * Spring AI, langchain4j and others use it. Prints one line of JSON that the test compares.
 */
public class EmbeddingsClient {
    private static final String BODY =
            "{\"input\": [\"hello\", \"a \\u00fcmlaut and \\ud83d\\ude00\"], \"encoding_format\": \"base64\"}";

    private final HttpClient client = HttpClient.newHttpClient();
    private final String url;

    EmbeddingsClient(String url) {
        this.url = url;
    }

    private HttpRequest.Builder to(String path, String type, BodyPublisher body) {
        return HttpRequest.newBuilder(URI.create(url + path))
                .header("Content-Type", type)
                .header("Authorization", "Bearer test-key")
                .POST(body);
    }

    private HttpRequest embed(BodyPublisher body) {
        return to("/v1/embeddings", "application/json", body).build();
    }

    private String send(HttpRequest request) throws Exception {
        HttpResponse<String> answer = client.send(request, BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
        }
        return answer.body();
    }

    private String upload(BodyPublisher content) throws Exception {
        return send(to("/v1/files", "multipart/form-data; boundary=the-border", content).build());
    }

    public static void main(String[] arguments) throws Exception {
        EmbeddingsClient java = new EmbeddingsClient(arguments[0]);
        byte[] bytes = BODY.getBytes(StandardCharsets.UTF_8);
        String sync = java.send(java.embed(BodyPublishers.ofString(BODY)));
        String chunked = java.send(java.embed(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes))));
        List<CompletableFuture<HttpResponse<String>>> calls = new ArrayList<>();
        for (int call = 0; call < 20; call++) {
            BodyPublisher body = call % 2 == 0
                    ? BodyPublishers.ofByteArray(bytes)
                    : BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(bytes));
            calls.add(java.client.sendAsync(java.embed(body), BodyHandlers.ofString()));
        }
        int same = 0;
        for (CompletableFuture<HttpResponse<String>> call : calls) {
            same += call.get().body().equals(sync) ? 1 : 0;
        }
        String form = "--the-border\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n"
                + "--the-border\r\nContent-Disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n"
                + "Content-Type: application/jsonl\r\n\r\nUpgrade: h2c\r\n\r\n--the-border--\r\n";
        byte[] formBytes = form.getBytes(StandardCharsets.UTF_8);
        String file = java.upload(BodyPublishers.ofByteArray(formBytes));
        String chunkedFile = java.upload(BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(formBytes)));
        HttpRequest models = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/models"))
                .header("Authorization", "Bearer test-key").build();
        System.out.println("{\"sync\": " + sync + ", \"chunked\": " + chunked + ", \"same\": " + same + ", \"files\": ["
                + file + ", " + chunkedFile + "], \"models\": " + java.send(models) + "}");
    }
}
