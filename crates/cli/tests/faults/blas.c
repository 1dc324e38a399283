/* cuBLASLt as far as the program calls it, for the GPU of gpu.c, which includes this: PROSPECT_CUBLASLT names the same
   library. Products compute nothing; their operands are looked at, and the GPU's clock goes on.

   The heuristic has four answers. The first takes 10 us; the second refuses every product when it is launched; the third
   wants more workspace than there is; the fourth takes 8 us, or 9.95 us where the second operand is transposed.

   BLAS_REFUSES    algorithms that did not come from the heuristic of this process are not taken
   BLAS_LAUNCHES   the file that gets the number of products by each answer */
#define ANSWERS 4
#define SIGN 0x70726f7370656374ull

typedef struct { uint64_t rows, columns; int64_t stride; int type; } Layout;
typedef struct { int transpose[2]; } Operation;
typedef struct { uint64_t sign, index, rest[6]; } Algorithm;
typedef struct { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; } Answer;

enum { INVALID_VALUE = 7, NOT_SUPPORTED = 15, F32 = 0, BF16 = 14 };
static const size_t needed[ANSWERS] = {0, 0, 1ull << 40, 1 << 20};
static _Atomic uint64_t launches[ANSWERS];

__attribute__((destructor)) static void count_launches(void) {
    const char *path = getenv("BLAS_LAUNCHES");
    FILE *file = path ? fopen(path, "w") : 0;
    if (!file) return;
    for (int i = 0; i < ANSWERS; i++) fprintf(file, "%llu ", (unsigned long long)launches[i]);
    fclose(file);
}

size_t cublasLtGetVersion(void) { return 120205; }
int cublasLtCreate(void **handle) { *handle = (void *)4; return SUCCESS; }
int cublasLtDestroy(void *handle) { return handle ? SUCCESS : INVALID_VALUE; }
int cublasLtMatmulDescCreate(void **made, int compute, int scale) {
    if (compute != 68 || scale != F32) wrong("a product that does not sum in f32", compute, scale);
    *made = calloc(1, sizeof(Operation));
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(void *made) { free(made); return SUCCESS; }
int cublasLtMatmulDescSetAttribute(void *made, int which, const void *value, size_t bytes) {
    if (which < 3 || which > 4 || bytes != 4) wrong("an attribute of a product", which, bytes);
    ((Operation *)made)->transpose[which - 3] = *(const int *)value;
    return SUCCESS;
}
int cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    Layout *layout = *made = calloc(1, sizeof *layout);
    *layout = (Layout){rows, columns, stride, type};
    return SUCCESS;
}
int cublasLtMatrixLayoutDestroy(void *made) { free(made); return SUCCESS; }
int cublasLtMatrixLayoutSetAttribute(void *made, int which, const void *value, size_t bytes) {
    if (which != 3 || bytes != 8) wrong("an attribute of a matrix", which, bytes);
    ((Layout *)made)->columns = *(const uint64_t *)value;
    return SUCCESS;
}
int cublasLtMatmulPreferenceCreate(void **made) { *made = (void *)5; return SUCCESS; }
int cublasLtMatmulPreferenceDestroy(void *made) { (void)made; return SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(void *made, int which, const void *value, size_t bytes) {
    (void)made, (void)which, (void)value, (void)bytes;
    return SUCCESS;
}

static int fits(const Operation *operation, const Layout *a, const Layout *b, const Layout *d) {
    uint64_t rows = operation->transpose[0] ? a->columns : a->rows, inner = operation->transpose[0] ? a->rows : a->columns;
    uint64_t columns = operation->transpose[1] ? b->rows : b->columns, other = operation->transpose[1] ? b->columns : b->rows;
    return inner == other && rows == d->rows && columns == d->columns;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, Answer *answers, int *answered) {
    (void)handle, (void)preference;
    if (!fits(operation, a, b, d) || c != d) wrong("a product of matrices that do not fit", 0, 0);
    *answered = wanted < ANSWERS ? wanted : ANSWERS;
    for (int i = 0; i < *answered; i++)
        answers[i] = (Answer){.algorithm = {SIGN, (uint64_t)i, {7, 7, 7, 7, 7, 7}}, .workspace = needed[i]};
    return SUCCESS;
}
int cublasLtMatmulAlgoCheck(void *handle, void *operation, void *a, void *b, void *c, void *d,
                            const Algorithm *algorithm, Answer *answer) {
    (void)handle, (void)c;
    if (!fits(operation, a, b, d)) wrong("a check of matrices that do not fit", 0, 0);
    if (setting("BLAS_REFUSES", 0) || algorithm->sign != SIGN || algorithm->index >= ANSWERS) return NOT_SUPPORTED;
    *answer = (Answer){.algorithm = *algorithm, .workspace = needed[algorithm->index]};
    return SUCCESS;
}

static void matrix(const char *what, const void *at, const Layout *layout) {
    uint64_t elements = (layout->columns - 1) * (uint64_t)layout->stride + layout->rows;
    within(what, (uint64_t)at, elements * (layout->type == F32 ? 4 : 2));
}

int cublasLtMatmul(void *handle, Operation *operation, const float *alpha, const void *a, Layout *of_a, const void *b,
                   Layout *of_b, const float *beta, const void *c, Layout *of_c, void *d, Layout *of_d,
                   const Algorithm *algorithm, void *workspace, size_t bytes, void *stream) {
    (void)handle, (void)alpha, (void)beta, (void)of_c;
    if (algorithm->sign != SIGN || algorithm->index >= ANSWERS || !stream || c != d)
        wrong("an algorithm that is none", algorithm->sign, algorithm->index);
    if (!fits(operation, of_a, of_b, of_d)) wrong("a launch with matrices that do not fit", of_d->rows, of_d->columns);
    if (algorithm->index == 1) return NOT_SUPPORTED;
    if (needed[algorithm->index] > bytes) wrong("more workspace than there is", needed[algorithm->index], bytes);
    matrix("a product's A", a, of_a);
    matrix("a product's B", b, of_b);
    matrix("a product's result", d, of_d);
    within("a product's workspace", (uint64_t)workspace, bytes);
    launches[algorithm->index]++;
    now += algorithm->index == 0 ? 0.010 : operation->transpose[1] ? 0.00995 : 0.008;
    return asked();
}
