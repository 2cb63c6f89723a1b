"""Small pictures for lists, drawn in the colour of the text beside them: a swatch, an eye, a padlock."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPainterPath, QPen, QPixmap

from napari_uniultra.core.palette import Colour

_PX = 16
_SCALE = 2  # sharp on fine screens
_LINE = 1.4
_FAINT = 0.35


def swatch(colour: Colour) -> QIcon:
    """A filled square."""
    picture = _blank()
    painter = _painter(picture, QColor(*colour))
    painter.fillRect(QRectF(2, 2, _PX - 4, _PX - 4), QColor(*colour))
    painter.end()
    return _icon(picture)


def eye(ink: QColor, is_open: bool) -> QIcon:
    """An eye; closed, it is struck through."""
    picture = _blank()
    painter = _painter(picture, ink, faint=not is_open)
    lid = QPainterPath(QPointF(1.5, 8))
    lid.quadTo(8, 1.5, 14.5, 8)
    lid.quadTo(8, 14.5, 1.5, 8)
    painter.drawPath(lid)
    painter.setBrush(ink)
    painter.drawEllipse(QPointF(8, 8), 1.8, 1.8)
    if not is_open:
        painter.setOpacity(1)
        painter.drawLine(QPointF(2.5, 13.5), QPointF(13.5, 2.5))
    painter.end()
    return _icon(picture)


def padlock(ink: QColor, is_closed: bool) -> QIcon:
    """A padlock; open, it is faint."""
    picture = _blank()
    painter = _painter(picture, ink, faint=not is_closed)
    shackle = QPainterPath(QPointF(5, 7.5))
    shackle.lineTo(5, 5)
    shackle.arcTo(QRectF(5, 2, 6, 6), 180, -180)
    if is_closed:
        shackle.lineTo(11, 7.5)
    painter.drawPath(shackle)
    if is_closed:
        painter.setBrush(ink)
    painter.drawRoundedRect(QRectF(3, 7.5, 10, 6.5), 1, 1)
    painter.end()
    return _icon(picture)


def _icon(picture: QPixmap) -> QIcon:
    """The picture as it is, also where its row is chosen: Qt would tint it."""
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)
    return icon


def _blank() -> QPixmap:
    picture = QPixmap(_PX * _SCALE, _PX * _SCALE)
    picture.setDevicePixelRatio(_SCALE)
    picture.fill(Qt.GlobalColor.transparent)
    return picture


def _painter(picture: QPixmap, ink: QColor, faint: bool = False) -> QPainter:
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(ink, _LINE))
    painter.setOpacity(_FAINT if faint else 1)
    return painter
