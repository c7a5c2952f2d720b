"""The report as a reader meets it."""

import re

import pytest


def names(page):
    return page.eval_on_selector_all(
        "#attribute-table tbody tr:not(.detail):not([hidden]) th", "cells => cells.map(cell => cell.dataset.value)"
    )


def values(page, table, column):
    return page.eval_on_selector_all(
        f"{table} tbody tr:not(.detail):not([hidden])", f"rows => rows.map(row => row.cells[{column}].dataset.value)"
    )


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def test_it_opens_with_every_part(report_page, open_page):
    page = open_page(report_page)
    assert page.title() == "toy · attrtrain"
    for link in page.query_selector_all("nav a"):
        assert page.query_selector(link.get_attribute("href")) is not None
    assert page.locator("#training svg[role=img]").count() == 3
    assert "best after epoch 2" in page.inner_text("#training")
    assert page.locator("#attribute-table tbody tr").count() == 20
    assert page.locator("#confusion .heat td").count() > 0
    assert page.locator("#views tbody tr").count() == 3
    about = page.inner_text("#about")
    assert about.count("9.9.9") == 1 and "except in 2 points:\n- one\n- two\n" in about
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_hostile_names_are_shown_and_do_nothing(report_page, open_page):
    page = open_page(report_page)
    page.fill("#attribute-search", "alert(1)")
    assert names(page) == ["</script><script>alert(1)</script>"]
    page.click("#attribute-table tbody tr:not([hidden]) button.open")
    page.fill("#attribute-search", "onerror")
    page.click("#attribute-table tbody tr:not([hidden]):not(.detail) button.open")
    assert page.locator("img[src='x']").count() == 0


def test_columns_sort_both_ways_and_say_so(report_page, open_page):
    page = open_page(report_page)
    page.select_option("#attribute-judged", "")
    head = page.locator("#attribute-table thead th").nth(3)  # prior
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    numbers = [float(value) for value in values(page, "#attribute-table", 3) if value]
    assert len(numbers) == 18 and numbers == sorted(numbers, reverse=True)
    assert values(page, "#attribute-table", 3)[-2:] == ["", ""]  # those without a number are last
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in values(page, "#attribute-table", 3) if value] == sorted(numbers)
    assert values(page, "#attribute-table", 3)[-2:] == ["", ""]
    first = page.locator("#attribute-table thead th").nth(0)
    first.locator("button").click()
    assert head.get_attribute("aria-sort") == "none" and first.get_attribute("aria-sort") == "ascending"
    plain = [name for name in names(page) if name.startswith("attribute")]
    assert plain == sorted(plain)


def test_filters_narrow_the_table_and_count(report_page, open_page):
    page = open_page(report_page)
    count = page.locator("#attribute-count")
    assert count.inner_text() == "18 of 20 attributes"  # those that are left out of the means are hidden at first
    page.select_option("#attribute-judged", "")
    assert count.inner_text() == "20 attributes"
    page.select_option("#attribute-group", "shape")
    assert count.inner_text() == "10 of 20 attributes" and len(names(page)) == 10
    page.fill("#attribute-search", "ATTRIBUTE 1")
    assert names(page) and all("attribute 1" in name for name in names(page))
    page.select_option("#attribute-judged", "no")
    assert names(page) == ["attribute 11"]
    page.fill("#attribute-search", "attribute 12")
    assert names(page) == []
    page.fill("#attribute-search", "")
    assert sorted(names(page)) == ["attribute 11", "attribute 9"] and count.inner_text() == "2 of 20 attributes"


def test_an_attribute_opens_its_curves_and_mistakes_and_closes_again(report_page, open_page):
    page = open_page(report_page)
    button = page.locator("#attribute-table button.open").first
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    detail = page.locator("#attribute-table tr.detail")
    assert detail.count() == 1 and detail.locator("svg[role=img]").count() == 2
    labels = detail.locator("svg[role=img]").evaluate_all(
        "charts => charts.map(chart => chart.getAttribute('aria-label'))"
    )
    assert labels[0].startswith("Precision and recall") and labels[1].startswith("Calibration")
    assert detail.locator("figure img").count() > 0
    opened = names(page)[0]
    page.locator("#attribute-table thead th button").first.click()  # the detail goes where its attribute goes
    before = page.eval_on_selector(
        "#attribute-table tr.detail", "row => row.previousElementSibling.cells[0].dataset.value"
    )
    assert before == opened
    button = page.locator("#attribute-table button[aria-expanded=true]")
    button.click()
    assert page.locator("#attribute-table tr.detail").count() == 0


def test_attributes_that_are_not_judged_open_as_well(report_page, open_page):
    page = open_page(report_page)
    page.select_option("#attribute-judged", "no")
    for button in page.locator("#attribute-table tr:not([hidden]) button.open").all():
        button.click()
    assert page.locator("#attribute-table tr.detail").count() == 2
    assert page.locator("#attribute-table tr.detail dl").count() == 2


def test_the_curve_ends_where_everything_is_named(report_page, open_page):
    """At full recall precision is the share of positives: the drawn curve must meet the line of the prior there."""
    page = open_page(report_page)
    page.locator("#attribute-table button.open").first.click()
    paths = (
        page.locator("#attribute-table tr.detail svg")
        .first.locator("path")
        .evaluate_all("lines => lines.map(line => line.getAttribute('d'))")
    )
    curve, prior = (
        [tuple(map(float, point)) for point in re.findall(r"[ML]([\d.]+) ([\d.]+)", path)] for path in paths[:2]
    )
    assert len(curve) > 5
    lowest = max(y for x, y in curve if x == curve[-1][0])
    assert curve[-1][0] == pytest.approx(prior[1][0], abs=0.5)
    assert lowest == pytest.approx(prior[1][1], abs=0.6) or curve[-1][1] <= prior[1][1] + 0.6


def test_the_gallery_tells_verdicts_apart_by_more_than_colour(report_page, open_page):
    page = open_page(report_page)
    signs = {}
    for name in ("right", "wrong", "missed", "unknown"):
        entry = page.locator(f"#gallery .gallery li.{name}").first
        signs[name] = entry.evaluate("item => getComputedStyle(item, '::before').content")
        assert entry.locator(".hidden").first.text_content() == f"{name}: "
    assert len(set(signs.values())) == 4 and "none" not in signs.values()
    assert page.locator("#gallery figure img").count() == 24


def test_mistakes_of_a_chosen_attribute(report_page, open_page):
    page = open_page(report_page)
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    column = data["names"].index("attribute 12")
    page.select_option("#mistake-attribute", label="attribute 12")
    expected = [f"{data['objects'][str(row)][0]}" for kind in data["attributes"][column]["mistakes"] for row, _ in kind]
    assert page.locator("#mistake-panel .id").all_inner_texts() == expected
    shown = page.locator("#mistake-panel figure.mistake-wrong, #mistake-panel li.wrong").all_inner_texts()
    scores = [float(re.search(r"[01]\.\d+", text)[0]) for text in shown]
    assert scores == sorted(scores, reverse=True) and all(score >= 0.5 for score in scores)


def test_objects_sort_page_search_and_open(report_page, open_page):
    page = open_page(report_page)
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")["samples"]
    total = len(data["id"])
    assert page.locator("#object-count").inner_text() == f"{total} objects"
    assert page.locator("#object-table tbody tr").count() == 25
    page.locator("#object-table thead th").nth(2).locator("button").click()
    accuracy = sorted((c / k for c, k in zip(data["correct"], data["known"], strict=True)), reverse=True)
    page.click("#object-after")
    assert page.inner_text("#object-page").startswith("page 2 of ") and total > 75
    second = [float(text) for text in page.locator("#object-table tbody td:nth-child(3)").all_inner_texts()]
    assert second == pytest.approx(accuracy[25:50], abs=6e-4)
    wanted = data["id"][7]
    page.fill("#object-search", wanted)
    row = page.locator("#object-table tbody tr").first
    assert row.locator("button").inner_text() == wanted
    cells = row.locator("td").all_inner_texts()
    assert cells[2:] == [str(data[name][7]) for name in ("named", "present", "known")]
    row.locator("button").click()
    detail = page.locator("#object-table tr.detail").inner_text()
    assert f"right ({len(data['right'][7])})" in detail and f"missed ({len(data['missed'][7])})" in detail
    page.fill("#object-search", "no such object")
    assert (
        page.locator("#object-table tbody tr").count() == 0
        and page.locator("#object-page").inner_text() == "page 1 of 1"
    )


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(report_page, open_page, width):
    page = open_page(report_page, width=width)
    page.locator("#attribute-table button.open").nth(4).click()
    page.locator("#object-table button.open").first.click()
    assert overflow(page) <= 0
    box = page.locator("#attribute-table tbody tr").first.bounding_box()
    assert width < 375 or box["x"] + box["width"] <= width  # what matters of the table is seen without scrolling it


def contrast(page, selector):
    """The WCAG contrast ratio of an element's text and the ground it stands on."""
    return page.evaluate(
        """selector => {
            const element = document.querySelector(selector);
            const parse = (text) => text.match(/[\\d.]+/g).map(Number);
            const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const layers = [];
            for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
            const ground = layers.reduce((below, layer) => below.map((value, i) => value + (layer[i] - value) * (layer[3] ?? 1)), [255, 255, 255]);
            const [a, b] = [light(parse(getComputedStyle(element).color)), light(ground)];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }""",
        selector,
    )


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_by_day_and_by_night(report_page, open_page, dark):
    page = open_page(report_page, dark=dark)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 252, 250)") != dark
    page.evaluate(
        "document.querySelector('.heat td:not(.none)').id = 'darkest'; document.getElementById('darkest').style.setProperty('--heat', 1)"
    )
    for selector in (
        "#darkest",
        "main p",
        ".note",
        ".lead",
        ".big",
        "nav a",
        "button.open",
        "#gallery li.unknown span",
        ".id",
        ".chip",
        "thead th",
    ):
        assert contrast(page, selector) >= 4.5, selector


@pytest.mark.parametrize("width", [375, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nobody_is_shut_out(report_page, open_page, barriers, width, dark):
    page = open_page(report_page, width=width, dark=dark)
    page.locator("#attribute-table button.open").nth(4).click()
    page.locator("#object-table button.open").first.click()
    assert barriers(page) == []


def test_every_control_has_a_name_and_every_picture_a_text(report_page, open_page):
    page = open_page(report_page)
    unnamed = page.evaluate(
        """[...document.querySelectorAll('input, select, button')].filter((control) => !(control.labels?.length || control.textContent.trim() || control.ariaLabel)).length"""
    )
    assert unnamed == 0
    assert page.evaluate("[...document.images].filter((image) => !image.alt).length") == 0
    assert (
        page.evaluate(
            "[...document.querySelectorAll('svg')].filter((chart) => !chart.getAttribute('aria-label') && chart.getAttribute('aria-hidden') !== 'true').length"
        )
        == 0
    )
    assert (
        page.evaluate(
            "[...document.querySelectorAll('[id]')].map((element) => element.id).filter((id, place, all) => all.indexOf(id) !== place).length"
        )
        == 0
    )


def test_on_paper_everything_is_unfolded_and_nothing_is_cut(report_page, open_page):
    page = open_page(report_page)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every((details) => details.open)")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden() and page.locator("#attribute-controls").is_hidden()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    content = page.pdf(format="A4")
    assert content.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 40


def test_without_javascript_the_numbers_are_there(report_page, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report_page.as_uri())
    assert page.locator("#attribute-table tbody tr").count() == 20
    assert page.locator("#attribute-controls").is_hidden()  # no control that does nothing
    assert "mAP" in page.inner_text("#result")
    context.close()
