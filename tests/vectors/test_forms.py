"""What each form of an index is made by and searched with, and that PostgreSQL takes it so and searches by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from searched_table import COSINE, DIMENSION, TABLE, build, make_table, searchable, thorough
from stores import unit_vectors

from orchestra_lib.database import connect
from orchestra_lib.errors import GateFailed, ParameterError
from orchestra_lib.vectors.forms import EXACT, Effort, Form, Method, Storage, hnsw, ivfflat, scann
from orchestra_lib.vectors.index import serving_index
from orchestra_lib.vectors.search import recalls, search
from orchestra_lib.vectors.truth import OPERATORS, exact_neighbours

ROWS = 1_500
BUILT = [method(storage=storage) for method in (lambda storage: ivfflat(30, storage), hnsw) for storage in Storage]
QUERIES = unit_vectors(ROWS + 20, 0, DIMENSION, clusters=ROWS // 4)[ROWS:]


def text(statement):
    return statement.as_string(None)


@pytest.fixture(scope="module")
def table(lasting_database):
    make_table(lasting_database, ROWS)
    return lasting_database


@pytest.mark.parametrize("form", BUILT, ids=lambda form: form.label)
def test_every_form_is_built_read_back_and_searched_by_its_own_index(table, form):
    name = build(table, form)
    with connect(table) as connection:
        truth = exact_neighbours(connection, TABLE, QUERIES, 10, COSINE)
        found = serving_index(connection, TABLE)
        run = search(connection, searchable(form), QUERIES, thorough(form))
        connection.execute(f'DROP INDEX "{name}"')
    assert (found.name, found.form, found.valid, found.dimension) == (name, form, True, DIMENSION)
    assert found.opclass == (None if form.storage is Storage.BIT else COSINE)
    assert run.plan_uses == name
    assert recalls(run, truth).mean() > 0.97


@pytest.mark.parametrize("opclass", OPERATORS)
def test_an_exact_search_reads_the_table_although_there_is_an_index(table, opclass):
    name = build(table, ivfflat(30))
    with connect(table) as connection:
        truth = exact_neighbours(connection, TABLE, QUERIES, 10, opclass)
        run = search(connection, searchable(EXACT, opclass=opclass), QUERIES, Effort(1))
        connection.execute(f'DROP INDEX "{name}"')
    assert run.plan_uses is None
    assert recalls(run, truth).min() == 1.0


def test_candidates_of_a_coarse_index_come_back_in_the_order_of_their_true_distances(table):
    form = ivfflat(30, Storage.BIT)
    name = build(table, form)
    with connect(table) as connection:
        exact = search(connection, searchable(EXACT), QUERIES, Effort(1))
        few = search(connection, searchable(form), QUERIES, Effort(30, rerank=10))
        all_of_them = search(connection, searchable(form), QUERIES, Effort(30, rerank=ROWS))
        connection.execute(f'DROP INDEX "{name}"')
    assert all_of_them.ids == exact.ids
    assert few.ids != exact.ids


@pytest.mark.parametrize("form", [ivfflat(30), hnsw()], ids=lambda form: form.label)
def test_a_filter_leaves_a_search_short_and_an_iterative_scan_fills_it_up(table, form):
    build(table, form)
    rare = [("rare",)] * len(QUERIES)
    target, little = searchable(form, filters=("user_id",)), Effort(1 if form.method is Method.IVFFLAT else 10)
    with connect(table) as connection:
        short = search(connection, target, QUERIES, little, rare)
        full = search(connection, target, QUERIES, Effort(little.value, iterative=True), rare)
        owners = connection.execute("SELECT id, user_id FROM memories").fetchall()
        distances = dict(zip(full.ids[0], _distances(connection, QUERIES[0], full.ids[0]), strict=True))
        connection.execute(f'DROP INDEX "{form.index_name("memories")}"')
    assert min(len(ids) for ids in short.ids) < 10
    assert {len(ids) for ids in full.ids} == {10}
    assert {dict(owners)[key] for ids in full.ids for key in ids} == {"rare"}
    assert list(distances.values()) == sorted(distances.values()), "batches come in no strict order, the answer does"


def _distances(connection, query, ids):
    rows = connection.execute(
        "SELECT id, embedding <=> %s::vector FROM memories WHERE id = ANY(%s)", [query.tolist(), list(ids)]
    ).fetchall()
    return [dict(rows)[key] for key in ids]


def test_scann_is_told_as_text_and_says_that_it_does_not_run_on_postgresql():
    form = scann(316)
    assert text(form.create_statement("memories", "embedding", 1536, COSINE, concurrently=True)) == (
        'CREATE INDEX CONCURRENTLY "memories_embedding_scann_316" ON "memories" USING scann '
        '("embedding" "cosine") WITH (num_leaves = 316)'
    )
    assert [form.index_opclass(opclass) for opclass in OPERATORS] == ["cosine", "dot_product", "l2"]
    assert form.settings(Effort(30)) == {"scann.num_leaves_to_search": "30"}
    assert form.settings(Effort(30, rerank=500))["scann.pre_reordering_num_neighbors"] == "500"
    assert text(searchable(form).statement(Effort(30, rerank=500))).endswith(
        'FROM "memories" ORDER BY "embedding"::vector <=> %(query)b LIMIT 10'
    ), "the index re-ranks by itself"
    assert "were not run here" in form.caveat
    assert [other.caveat for other in (EXACT, *BUILT)] == [""] * (1 + len(BUILT))


def test_scann_is_refused_on_a_server_that_does_not_have_it(table):
    with pytest.raises(GateFailed, match="knows no scann indexes; CREATE EXTENSION alloydb_scann, which only AlloyDB"):
        build(table, scann(10))


@pytest.mark.parametrize(
    ("form", "effort", "said"),
    [
        (ivfflat(10), Effort(0), r"ivfflat.probes 0 has to lie between 1 and 32,768"),
        (hnsw(), Effort(1_001), r"hnsw.ef_search 1001 has to lie between 1 and 1,000"),
        (hnsw(), Effort(9), r"ef_search 9 gives at most 9 rows where 10 are asked"),
        (hnsw(storage=Storage.BIT), Effort(40, rerank=100), r"ef_search 40 gives at most 40 rows where 100"),
        (ivfflat(10), Effort(3, rerank=5), r"5 candidates cannot be re-ranked to 10"),
        (ivfflat(10, Storage.BIT), Effort(3), r"give the effort a number to re-rank"),
        (EXACT, Effort(1, iterative=True), r"exact knows no iterative scan"),
    ],
)
def test_an_effort_that_cannot_answer_is_refused_with_its_number(form, effort, said):
    with pytest.raises(ParameterError, match=said):
        searchable(form).statement(effort)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ivfflat(0), "lists 0"),
        (lambda: hnsw(32, 40), "ef_construction 40 has to be at least twice the m of 32"),
        (lambda: Form(Method.SCANN, Storage.BIT), "scann searches vectors as they are"),
        (lambda: EXACT.create_statement("t", "c", 3, COSINE), "no index to make"),
        (lambda: ivfflat().create_statement("t", "c", 3, COSINE), "it has no lists"),
        (lambda: ivfflat(9).create_statement("t", "c", 3072, COSINE), "at most 2,000 dimensions, 3,072 were"),
    ],
)
def test_a_form_that_no_server_could_make_is_refused(make, said):
    with pytest.raises(ParameterError, match=said):
        make()


FORMS = st.one_of(
    st.builds(ivfflat, st.integers(1, 32_768), st.sampled_from(Storage)),
    st.builds(hnsw, st.integers(2, 100), st.integers(200, 1_000), st.sampled_from(Storage)),
    st.builds(scann, st.integers(1, 10**6)),
)


@given(FORMS, FORMS, st.text("abcdefghijä_", min_size=1, max_size=70))
def test_two_forms_never_share_a_name_and_no_name_is_cut_off(one, other, table):
    names = one.index_name(table), other.index_name(table)
    assert (names[0] == names[1]) == (one == other)
    assert all(len(name.encode()) <= 63 for name in names)


@given(FORMS)
def test_a_form_comes_back_from_its_document(form):
    assert Form.from_document(form.as_document()) == form
