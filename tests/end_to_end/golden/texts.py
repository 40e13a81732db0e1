"""Two hundred varied texts: languages, scripts, code, marks, numbers, lengths from nothing to too long."""

from itertools import product

LANGUAGES = {
    "en": ("The server answers {} requests a second.", "A {} vector is a prefix of the whole one."),
    "de": ("Der Server beantwortet {} Anfragen pro Sekunde.", "Größe und Maß hängen von {} ab."),
    "fr": ("Le serveur répond à {} requêtes par seconde.", "L'été dernier, {} était déjà là."),
    "es": ("El servidor responde a {} peticiones por segundo.", "¿Cuánto mide {} en total?"),
    "it": ("Il server risponde a {} richieste al secondo.", "Perché {} è così lento?"),
    "pt": ("O servidor responde a {} pedidos por segundo.", "A dimensão de {} não importa."),
    "pl": ("Serwer obsługuje {} żądań na sekundę.", "Zażółć gęślą jaźń, {} razy."),
    "tr": ("Sunucu saniyede {} isteğe yanıt verir.", "İstanbul'da {} ışık yanıyor."),
    "ru": ("Сервер обрабатывает {} запросов в секунду.", "Матрёшка прячет {} внутри."),
    "el": ("Ο διακομιστής απαντά σε {} αιτήματα.", "Η διάσταση του {} είναι μικρή."),
    "ar": ("يجيب الخادم على {} طلبات في الثانية.", "البعد {} كبير جدا."),
    "he": ("השרת עונה על {} בקשות בשנייה.", "הממד של {} קטן."),
    "hi": ("सर्वर प्रति सेकंड {} अनुरोधों का उत्तर देता है।", "{} का आकार छोटा है।"),
    "th": ("เซิร์ฟเวอร์ตอบ {} คำขอต่อวินาที", "ขนาดของ {} เล็กมาก"),
    "vi": ("Máy chủ trả lời {} yêu cầu mỗi giây.", "Kích thước của {} rất nhỏ."),
    "zh": ("服务器每秒回答{}个请求。", "{}的维度很小。"),
    "ja": ("サーバーは毎秒{}件の要求に答えます。", "{}の次元は小さいです。"),
    "ko": ("서버는 초당 {}개의 요청에 답합니다.", "{}의 차원은 작습니다."),
}
SUBJECTS = ("17", "pear tree", "B-52")
CODE = (
    "def cosine(a, b):\n    return (a @ b) / (norm(a) * norm(b))",
    "SELECT id, count(*) FROM items WHERE price > 9.99 GROUP BY id;",
    "for (let i = 0; i < n; i++) { total += values[i] ?? 0; }",
    'fn main() -> Result<(), Box<dyn Error>> { println!("{:?}", x); Ok(()) }',
    "#include <vector>\nstd::vector<float> v(384, 0.0f);",
    "docker compose --profile cpu up -d && curl -s localhost:8080/health/ready",
    '{"model": "m", "input": ["a", "b"], "dimensions": 128}',
    "SGVsbG8sIHdvcmxkIQ== 0xDEADBEEF 3.14159e-10 1_000_000",
)
ODD = (
    "",
    " ",
    "\n\n\t",
    "a",
    "A",
    ".",
    "?!?!?!",
    "…",
    "\x00\x01\x02",
    "\u200b\u200d\ufeff",
    "e\u0301 is é is \u00e9",
    "ﬁ ligature, ½ half, № number, ™ mark",
    "UPPER lower MiXeD cAsE",
    "👨‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb",
    "🚀🚀🚀🚀🚀🚀🚀🚀",
    "[CLS] [SEP] [MASK] [PAD] [UNK]",
    "##ing ##ed un##known",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a" * 99,
    "a" * 101,
    "https://example.org/path?query=1&other=two#fragment",
    "user.name+tag@example.co.uk",
    "2026-11-21T08:30:00Z, 21/11/2026, Nov 21st",
    "+1 (555) 010-9999; IBAN DE00 1234 5678; ISBN 978-3-16-148410-0",
    "$1,234.56 = €1.132,10 ≈ ¥171,900",
    "∀x∈ℝ: x² ≥ 0 ⇒ √x² = |x|, ∑ᵢ aᵢ ≤ ∞",
    "C₆H₁₂O₆ + 6O₂ → 6CO₂ + 6H₂O",
    "This is an example sentence",
    "Each sentence is converted",
    "the " * 50,
)
SENTENCES = (
    "Nested dolls hold smaller ones.",
    "A prefix of the vector is a coarser vector.",
    "Short queries wait behind long documents unless somebody minds them.",
    "The clerk stamped the form twice and sent it back.",
    "Rain fell on the harbour all night, and the boats knocked together.",
    "Measure before you cut, and cut before you scale.",
    "Copper conducts heat better than iron does.",
    "Her grandmother kept bees behind the old mill.",
    "No budget survives its first contact with reality.",
    "The comet will not return for eleven thousand years.",
)


def golden_texts() -> list[str]:
    """Return all two hundred texts, always the same."""
    texts = [form.format(s) for forms in LANGUAGES.values() for form, s in product(forms, SUBJECTS)]
    texts += [*CODE, *ODD]
    count = 1
    while len(texts) < 200:
        # Growing passages: from one sentence to well over 256 tokens.
        sentences = [SENTENCES[(count * 7 + n * 3) % len(SENTENCES)] for n in range(count)]
        texts.append(" ".join(sentences))
        count += 1
    return texts
