"""Reader of Markdown pages for tests: code, prose, links, headings."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Page:
  """A page in the part of Markdown that our pages use."""

  code: tuple[tuple[str, str], ...]  # (language or "", text) of each block
  prose: str  # text outside the blocks

  @property
  def spans(self) -> list[str]:
    """Texts between single backticks, each joined to one line."""
    spans = re.findall(r"`([^`]+)`", self.prose)
    return [" ".join(span.split()) for span in spans]

  @property
  def links(self) -> list[str]:
    """Targets of links and pictures."""
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", self.prose)

  @property
  def anchors(self) -> set[str]:
    """Names of the headings, as GitHub makes them."""
    anchors, seen = set(), {}
    for heading in re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE):
      kept = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
      count = seen[kept] = seen.get(kept, -1) + 1
      anchors.add(f"{kept}-{count}" if count else kept)
    return anchors

  @property
  def lines_of_code(self) -> list[str]:
    """Lines of shell, each joined with the lines that continue it."""
    shell = [text for language, text in self.code if language != "python"]
    return re.sub(r"\\\n\s*", "", "\n".join(shell)).splitlines()


def parse(text: str) -> Page:
  """Splits a page; blocks are fenced, or indented by four after a blank."""
  code, prose = [], []
  lines = iter(text.splitlines())
  blank = True
  for line in lines:
    if line.startswith("```"):
      block = []
      for inner in lines:
        if inner.startswith("```"):
          break
        block.append(inner)
      code.append((line[3:].strip(), "\n".join(block)))
    elif line.startswith("    ") and blank:
      code.append(("", line[4:]))
      continue  # the next line may continue the block
    else:
      prose.append(line)
    blank = not line.strip()
  return Page(tuple(code), "\n".join(prose))
