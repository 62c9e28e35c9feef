"""Brazilian Portuguese for whatever a problem says: titles by code, details by sentence, validation by its kind.

Details are English sentences, made all over the program and at other banks, whose words travel as they are. So they
are translated here, at the edge, by what they say: ``SENTENCES`` pairs each with its translation, with named places
where something is filled in. What stands in no table is left in English: another bank may be of a later version.

A test reads the source and fails for a sentence that is missing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

TITLES: Final[dict[str, str]] = {
    "malformed_request": "A requisição não é HTTP como este banco o lê",
    "malformed_json": "O corpo não é JSON como este banco o lê",
    "idempotency_key_required": "O cabeçalho Idempotency-Key é obrigatório",
    "invalid_idempotency_key": "O cabeçalho Idempotency-Key não traz uma chave válida",
    "unauthorized": "É preciso um token válido",
    "invalid_credentials": "Documento ou senha incorretos",
    "forbidden": "Este acesso não permite isto",
    "not_found": "Não há nada aqui",
    "method_not_allowed": "Este método não serve para este endereço",
    "request_timeout": "A requisição demorou demais para chegar",
    "account_not_empty": "A conta não está zerada",
    "company_exists": "A empresa já tem conta neste banco",
    "holder_exists": "O documento já está cadastrado neste banco",
    "idempotency_in_progress": "A primeira requisição com esta chave ainda está em andamento",
    "not_in_suspense": "Não há tanto em suspenso",
    "not_resolvable": "Esta transação não pode ser resolvida manualmente",
    "not_settleable": "Esta transação não pode ser acertada",
    "body_too_large": "O corpo é grande demais",
    "unsupported_media_type": "O tipo de mídia do corpo não é aceito aqui",
    "account_closed": "A conta está encerrada",
    "account_not_found": "Conta inexistente",
    "approval_expired": "O prazo de aprovação terminou",
    "approval_required": "Outros titulares precisam aprovar",
    "bank_refused": "Um banco recusou",
    "consent_exceeded": "O consentimento não cobre este débito",
    "consent_expired": "O consentimento expirou",
    "consent_required": "É preciso um consentimento",
    "duplicate_holder": "Um documento aparece duas vezes",
    "holder_not_found": "Um cotitular não está cadastrado aqui",
    "idempotency_conflict": "A chave já foi usada para outra coisa",
    "insufficient_funds": "Saldo disponível insuficiente",
    "invalid_account_number": "O número da conta está incorreto",
    "invalid_amount": "O valor não é válido",
    "invalid_approval": "A regra de aprovação não é válida",
    "invalid_cnpj": "O CNPJ não é válido",
    "invalid_cpf": "O CPF não é válido",
    "invalid_cursor": "O cursor não é deste banco",
    "invalid_request": "A requisição não é válida",
    "limit_exceeded": "Um limite seria ultrapassado",
    "not_a_holder": "A conta não é deste titular",
    "not_run": "A transferência não foi executada",
    "position_limit": "Um banco ficaria devendo mais do que o seu limite",
    "too_many_legs": "A transferência tem lançamentos demais",
    "unbalanced_transfer": "A soma dos débitos não é igual à dos créditos",
    "unknown_bank": "Não há esse banco na rede",
    "too_many_requests": "Tentativas demais",
    "headers_too_large": "O cabeçalho da requisição é grande demais",
    "internal_error": "Este banco cometeu um erro",
    "bank_unreachable": "Não foi possível falar com um banco",
    "busy": "Este banco está ocupado",
    "interrupted": "A transferência foi interrompida",
    "not_ready": "Este banco não está pronto",
    "outcome_unknown": "O resultado ainda não é conhecido",
}
"""Each code's title. A code of which there is none here keeps its English one."""

SENTENCES: Final[dict[str, str]] = {
    # Plans
    "at most {amount} can be reached": "é possível reunir no máximo {amount}",
    "at most {amount} can be reached with {count} debits, all that a transfer has room for": (
        "é possível reunir no máximo {amount} com {count} débitos, que é o que cabe numa transferência"
    ),
    "{why}; these banks did not answer: {banks}": "{why}; estes bancos não responderam: {banks}",
    "the bank to be credited did not answer; try again later": (
        "o banco da conta a ser creditada não respondeu; tente novamente mais tarde"
    ),
    "no consent lets this bank debit this account": "nenhum consentimento permite a este banco debitar esta conta",
    "this bank has no such account that you may debit alone": (
        "você não tem neste banco uma conta com este número que possa debitar sozinho"
    ),
    # An operator's last resort
    "this bank coordinates it and its database was restored: only a participant's part can be forced": (
        "este banco a coordena e seu banco de dados foi restaurado: só a parte de um participante pode ser forçada"
    ),
    "this bank coordinates it and its outcome is decided: there is nothing to guess": (
        "este banco a coordena e o resultado já está decidido: não há o que adivinhar"
    ),
    "an operator has forced this part already: its entries are posted, or its holds released": (
        "um operador já forçou esta parte: os lançamentos foram feitos, ou os bloqueios liberados"
    ),
    "its outcome has just become known: there is nothing left to force": (
        "o resultado acaba de ser conhecido: não há mais o que forçar"
    ),
    "this part is not in doubt": "esta parte não está em dúvida",
    "no bank that has answered has committed this, so that there is nothing to post": (
        "nenhum dos bancos que responderam efetivou esta transação, portanto não há nada a lançar"
    ),
    "{banks} has not told yet what it knows of this; wait until it has": (
        "{banks} ainda não informou o que sabe desta transação; espere até que informe"
    ),
    "no such transfer was lost here": "essa transferência não se perdeu aqui",
    "a request asks for decisions once": "uma requisição pede as decisões uma só vez",
    "its participants do not agree on when it was committed": (
        "os participantes não concordam sobre quando ela foi efetivada"
    ),
    "the accounts here were debited {amount} by it, all of them together: no more, and no credit": (
        "as contas daqui foram debitadas em {amount} por ela, ao todo: nada além disso, e nenhum crédito"
    ),
    "the accounts here were credited {amount} by it, all of them together: no more, and no debit": (
        "as contas daqui foram creditadas em {amount} por ela, ao todo: nada além disso, e nenhum débito"
    ),
    "{amount} is left in suspense to be credited": "restam {amount} em suspenso para creditar",
    "{amount} is left in suspense to be debited": "restam {amount} em suspenso para debitar",
    "{amount} of this transaction is left in suspense to be credited": (
        "desta transação restam {amount} em suspenso para creditar"
    ),
    "{amount} of this transaction is left in suspense to be debited": (
        "desta transação restam {amount} em suspenso para debitar"
    ),
    # Sign-in and authority
    "send a token from POST /v1/token: `Authorization: Bearer …`": (
        "envie um token obtido em POST /v1/token: `Authorization: Bearer …`"
    ),
    "this token is not valid here, or not any more": "este token não é válido aqui, ou deixou de ser",
    "this needs the authority of {whose}": "isto exige entrar como {whose}",
    "a holder": "titular",
    "the operator": "operador",
    "the document or the password is wrong": "o documento ou a senha está incorreto",
    "too many attempts from here; try again in {count} s": "tentativas demais daqui; tente novamente em {count} s",
    "too many sign-ins and registrations wait; try again in a moment": (
        "há acessos e cadastros demais na fila; tente novamente em instantes"
    ),
    # The request itself
    "send an Idempotency-Key header: 1 to 255 visible characters": (
        "envie um cabeçalho Idempotency-Key: de 1 a 255 caracteres visíveis"
    ),
    "one key of 1 to {count} visible ASCII characters, quoted or bare": (
        "uma única chave de 1 a {count} caracteres ASCII visíveis, com ou sem aspas"
    ),
    "a JSON body is required here": "aqui é obrigatório um corpo JSON",
    "the body is not JSON as this bank reads it: {why}": "o corpo não é JSON como este banco o lê: {why}",
    "nested deeper than {count} levels": "aninhado em mais de {count} níveis",
    "a key stands twice in one object": "uma chave aparece duas vezes no mesmo objeto",
    "NaN and Infinity are not JSON": "NaN e Infinity não são JSON",
    "a number beyond all bounds": "um número fora de qualquer limite",
    "a number or a nesting beyond all bounds": "um número ou um aninhamento fora de qualquer limite",
    "not UTF-8, or a lone surrogate": "não é UTF-8, ou traz metade de um par substituto",
    "{mistake} at character {count}": "{mistake} no caractere {count}",
    "Expecting value": "falta um valor",
    "Expecting property name enclosed in double quotes": "falta um nome de propriedade entre aspas duplas",
    "Expecting ':' delimiter": "falta o delimitador ':'",
    "Expecting ',' delimiter": "falta o delimitador ','",
    "Extra data": "há dados a mais",
    "Unterminated string starting at": "texto sem fim, iniciado",
    "Invalid control character at": "caractere de controle não permitido",
    "Invalid \\escape": "sequência de escape inválida",
    "Invalid \\uXXXX escape": "sequência \\uXXXX inválida",
    "Unexpected UTF-8 BOM (decode using utf-8-sig)": "há uma marca de ordem de bytes (BOM)",
    "Illegal trailing comma before end of array": "vírgula a mais antes do fim da lista",
    "Illegal trailing comma before end of object": "vírgula a mais antes do fim do objeto",
    "send the body as it is, without a Content-Encoding": "envie o corpo como ele é, sem Content-Encoding",
    "send {choices}": "envie {choices}",
    "use {methods}": "use {methods}",
    "there is nothing at this address; all that there is stands at /docs": (
        "não há nada neste endereço; tudo o que existe está em /docs"
    ),
    "the body is larger than this address takes": "o corpo é maior do que este endereço aceita",
    "at most {count} KiB are taken here": "aqui são aceitos no máximo {count} KiB",
    "at most {count} KiB of header are taken": "são aceitos no máximo {count} KiB de cabeçalho",
    "the request cannot be read": "a requisição não pode ser lida",
    "a request names its Host, once": "uma requisição nomeia o seu Host, uma única vez",
    "the request took too long to arrive": "a requisição demorou demais para chegar",
    "send a cursor as this list's `next_cursor` gave it, or none": (
        "envie um cursor tal como o `next_cursor` desta lista o deu, ou nenhum"
    ),
    # Values
    "{place}: {why}": "{place}: {why}",
    "lies in the past": "está no passado",
    'an amount is a string such as "150.00", never a JSON number': (
        'um valor é um texto como "150.00", nunca um número JSON'
    ),
    'an amount is a string such as "150.00": digits, a point and two decimals': (
        'um valor é um texto como "150.00": algarismos, um ponto e duas casas decimais'
    ),
    "an amount is greater than zero": "um valor é maior que zero",
    "an amount is greater than zero and within bounds": "um valor é maior que zero e não passa dos limites",
    "a time is a string such as 2026-11-23T12:00:00Z": "um horário é um texto como 2026-11-23T12:00:00Z",
    "a time is written as in 2026-11-23T12:00:00Z (RFC 3339)": (
        "um horário é escrito como em 2026-11-23T12:00:00Z (RFC 3339)"
    ),
    "a day is written as in 2026-11-23": "um dia é escrito como em 2026-11-23",
    "a CPF is eleven digits with two valid check digits": (
        "um CPF tem onze algarismos, com dois dígitos verificadores válidos"
    ),
    "the check digits of this CPF do not match": "os dígitos verificadores deste CPF não conferem",
    "a CNPJ is twelve capitals or digits and two valid check digits": (
        "um CNPJ tem doze letras maiúsculas ou algarismos e dois dígitos verificadores válidos"
    ),
    "the check digits of this CNPJ do not match": "os dígitos verificadores deste CNPJ não conferem",
    "an account number is eight digits, a hyphen and a valid check digit, as in 00000012-4": (
        "um número de conta tem oito algarismos, um hífen e um dígito verificador válido, como em 00000012-4"
    ),
    "a bank's code is eight digits or capitals, as in 99990002": (
        "o código de um banco tem oito algarismos ou letras maiúsculas, como em 99990002"
    ),
    "line breaks, control characters and direction marks are not taken": (
        "não são aceitos quebras de linha, caracteres de controle nem marcas de direção da escrita"
    ),
    "something to be read is needed, without line breaks, control characters or direction marks": (
        "é preciso algo legível, sem quebras de linha, caracteres de controle nem marcas de direção da escrita"
    ),
    "an e-mail address is written as in maria@example.com": (
        "um endereço de e-mail é escrito como em maria@example.com"
    ),
    "the tag is not one of those expected": "o valor que distingue os tipos não é um dos esperados",
    # What is there, and whose
    "there is no such account, or you do not hold it": "não existe essa conta, ou você não é titular dela",
    "you hold no such account at this bank": "você não tem essa conta neste banco",
    "you do not hold this account": "você não é titular desta conta",
    "there is no such consent, or it is another holder's": "não existe esse consentimento, ou ele é de outro titular",
    "there is no such transfer, or it does not concern you": (
        "não existe essa transferência, ou ela não diz respeito a você"
    ),
    "there is no such batch, or it is another holder's": "não existe esse lote, ou ele é de outro titular",
    "no such transaction is in doubt here": "essa transação não está em dúvida aqui",
    # Holders and accounts
    "this CPF is registered at this bank": "este CPF já está cadastrado neste banco",
    "between 1 and {count} holders can approve a debit": "um débito pode exigir a aprovação de 1 a {count} titulares",
    "this company has an account at this bank": "esta empresa já tem conta neste banco",
    "only the titular closes an account": "somente o primeiro titular encerra a conta",
    "only an empty account without holds can be closed": ("só se encerra uma conta zerada e sem valores bloqueados"),
    "no bank may hold that much cash": "nenhum banco pode guardar tanto dinheiro em espécie",
    "no account may hold that much money": "nenhuma conta pode guardar tanto dinheiro",
    "a CPF stands once among the holders of an account": "um CPF aparece uma só vez entre os titulares de uma conta",
    "a co-holder must be registered at this bank first": "um cotitular precisa antes estar cadastrado neste banco",
    # Consents
    "no such other bank in this network": "não há esse outro banco nesta rede",
    "at most {count} consents on one account": "no máximo {count} consentimentos por conta",
    "no consent lets this bank debit this account for this holder": (
        "nenhum consentimento permite que este banco debite esta conta por este titular"
    ),
    "a debit of this account needs other holders' approval": (
        "um débito nesta conta precisa da aprovação de outros titulares"
    ),
    "a debit of this account needs the approval of {count} holders": (
        "um débito nesta conta precisa da aprovação de {count} titulares"
    ),
    "the consent for this debit has expired": "o consentimento para este débito expirou",
    "this debit is more than the consent allows": "este débito é maior do que o consentimento permite",
    # Transfers
    "no such bank in this network": "não há esse banco nesta rede",
    "{bank} is offline; nothing moved, try again later with a new key": (
        "{bank} está fora do ar; nenhum valor foi movimentado, tente mais tarde com uma chave nova"
    ),
    "no such account at this bank": "não existe essa conta neste banco",
    "this account is closed": "esta conta está encerrada",
    "the available balance does not cover this debit": "o saldo disponível não cobre este débito",
    "this would let a peer owe this bank more than its limit": (
        "com isto um banco ficaria devendo a este mais do que o seu limite"
    ),
    "a transfer has at most {count} legs; this one has {more}": (
        "uma transferência tem no máximo {count} lançamentos; esta tem {more}"
    ),
    "a transfer needs at least one debit and one credit": (
        "uma transferência precisa de pelo menos um débito e um crédito"
    ),
    "debits of {amount} do not equal credits of {other}": "os débitos somam {amount} e os créditos, {other}",
    "an earlier transfer of this batch failed": "uma transferência anterior deste lote falhou",
    "nothing moved": "nenhum valor foi movimentado",
    "another party's bank refused": "o banco de outra parte recusou",
    # Between banks
    "no vote in time from {banks}": "sem resposta a tempo de {banks}",
    "the votes came too late to be stamped in time": "os votos chegaram tarde demais para serem carimbados a tempo",
    "the bank stopped before it decided; nothing moved": (
        "o banco parou antes de decidir; nenhum valor foi movimentado"
    ),
    "aborted, says {bank}": "abortada, segundo {bank}",
    "already aborted": "já abortada",
    "aborted before it was prepared here": "abortada antes de ser preparada aqui",
    "the coordinator did not decide to commit": "o coordenador não decidiu efetivar",
    "promised a bank in doubt never to vote on this": (
        "este banco prometeu a outro, em dúvida, nunca votar nesta transação"
    ),
    "this bank's clock is too far ahead to be believed": "o relógio deste banco está adiantado demais para ser crível",
    "this stamp is too far ahead to be believed": "esta marca de tempo está adiantada demais para ser crível",
    "the sender's clock is too far ahead to be believed": (
        "o relógio do banco remetente está adiantado demais para ser crível"
    ),
    "vote_by lies further ahead than any sound deadline": "vote_by está mais adiante do que qualquer prazo razoável",
    "this bank may have lost a vote on this transaction": "este banco pode ter perdido um voto sobre esta transação",
    "the prepare arrived after its vote_by": "o pedido de preparação chegou depois do seu vote_by",
    "the net flow is not what the legs add up to": "o fluxo líquido não é a soma dos lançamentos",
    "this bank is not among the participants": "este banco não está entre os participantes",
    "a prepare has 1 to {count} legs, numbered apart": (
        "um pedido de preparação tem de 1 a {count} lançamentos, cada um com seu número"
    ),
    "a prepare names only accounts of the bank it is sent to": (
        "um pedido de preparação só cita contas do banco a que é enviado"
    ),
    "the answer to a prepare was no vote": "a resposta ao pedido de preparação não foi um voto",
    "{event} met a transaction that is {state}": "{event} encontrou uma transação no estado {state}",
    "another content was ordered under this transaction's id": (
        "outro conteúdo foi ordenado com o identificador desta transação"
    ),
    "the commit is stamped past its vote_by": "a efetivação está carimbada depois do seu vote_by",
    "the commit is stamped before this bank's own vote": (
        "a efetivação está carimbada antes do voto deste próprio banco"
    ),
    "the commit names other legs than the prepare did": "a efetivação cita lançamentos diferentes dos preparados",
    "this bank has no vote on this transaction": "este banco não votou nesta transação",
    "this bank has already aborted this transaction": "este banco já abortou esta transação",
    "only its participants may ask for this outcome": "somente os participantes podem perguntar por este resultado",
    "only the bank that coordinates a transaction may decide it": (
        "somente o banco que coordena uma transação pode decidi-la"
    ),
    "only banks that take part may ask for this outcome": (
        "somente os bancos que participam podem perguntar por este resultado"
    ),
    "a message is an object": "uma mensagem é um objeto",
    "this route takes messages of the kind {event}": "esta rota aceita mensagens do tipo {event}",
    "the digest is not that of what is ordered here": "o resumo criptográfico não corresponde ao que aqui se ordena",
    # What broke
    "this idempotency key was used before, with other content; use a new one": (
        "esta chave de idempotência já foi usada, com outro conteúdo; use uma nova"
    ),
    "the first request with this key is still running; ask again in a moment": (
        "a primeira requisição com esta chave ainda está em andamento; repita o pedido em instantes"
    ),
    "too many transfers are under way; send this again in a moment": (
        "há transferências demais em andamento; envie de novo em instantes"
    ),
    "the outcome is not known yet; ask again with the same idempotency key": (
        "o resultado ainda não é conhecido; repita o pedido com a mesma chave de idempotência"
    ),
    "the bank did not answer in time": "o banco não respondeu a tempo",
    "what was asked may or may not have happened; ask again with the same idempotency key": (
        "o que foi pedido pode ter acontecido ou não; repita o pedido com a mesma chave de idempotência"
    ),
    "this bank could not carry this out": "este banco não conseguiu executar isto",
    "this bank was restored from a backup and waits for what {banks} knows of it": (
        "este banco foi restaurado de uma cópia de segurança e espera o que {banks} sabe dele"
    ),
    "this bank's database is out of reach; try again in a moment": (
        "o banco de dados deste banco está fora de alcance; tente de novo em instantes"
    ),
    "this bank is reading its log, or is stopping; try again in a moment": (
        "este banco está lendo o seu registro, ou está parando; tente novamente em instantes"
    ),
    "this bank is stopping; ask again in a moment, with the same idempotency key": (
        "este banco está parando; repita o pedido em instantes, com a mesma chave de idempotência"
    ),
    "this is a bug of the bank's; its log says where": "isto é um defeito do banco; o registro dele diz onde",
}
"""What may become a detail, or part of one. A place is written ``{name}``; what fits there stands in ``PLACES``."""

PLACES: Final[dict[str, str]] = {
    "amount": r"[0-9]{1,20}\.[0-9]{2}",
    "bank": r"[0-9A-Z]{8}",
    "banks": r"[0-9A-Z]{8}(?:, [0-9A-Z]{8})*",
    "choices": r"[^ /]+/[^ /]+(?: or [^ /]+/[^ /]+)*",
    "count": r"[0-9]{1,30}",
    "mistake": r"(?:Expecting|Extra|Illegal|Invalid|Unexpected|Unterminated) .{1,80}",
    "more": r"[0-9]{1,30}",
    "other": r"[0-9]{1,20}\.[0-9]{2}",
    "event": r"[A-Za-z_]{1,30}",
    "state": r"[A-Za-z_]{1,30}",
    "methods": r"[A-Z]+(?:, [A-Z]+)*",
    "place": r"[A-Za-z0-9_.]{1,200}",
    "whose": r"a holder|the operator",
    "why": r".+",
}
"""What stands in a place, matched in one way only: sentences come from other banks, too. What fills *mistake*,
*whose* or *why* is translated in its turn."""

MAX_DEPTH: Final = 3
"""Sentences within a sentence that are translated; a longer chain comes from elsewhere."""

VALIDATION: Final[dict[str, str]] = {
    "bool_parsing": "precisa ser um valor booleano",
    "bool_type": "precisa ser um valor booleano",
    "dict_type": "precisa ser um objeto",
    "enum": "precisa ser {expected}",
    "extra_forbidden": "campo não previsto",
    "greater_than": "precisa ser maior que {gt}",
    "greater_than_equal": "precisa ser maior ou igual a {ge}",
    "int_from_float": "precisa ser um número inteiro",
    "int_parsing": "precisa ser um número inteiro",
    "int_parsing_size": "número inteiro grande demais",
    "int_type": "precisa ser um número inteiro",
    "less_than": "precisa ser menor que {lt}",
    "less_than_equal": "precisa ser menor ou igual a {le}",
    "list_type": "precisa ser uma lista",
    "literal_error": "precisa ser {expected}",
    "missing": "campo obrigatório",
    "model_attributes_type": "precisa ser um objeto",
    "model_type": "precisa ser um objeto",
    "string_too_long": "tamanho máximo: {max_length} caractere(s)",
    "string_too_short": "tamanho mínimo: {min_length} caractere(s)",
    "string_type": "precisa ser um texto",
    "string_unicode": "precisa ser um texto Unicode válido",
    "too_long": "no máximo {max_length} item(ns)",
    "too_short": "no mínimo {min_length} item(ns)",
    "union_tag_not_found": "falta o campo {discriminator}, que distingue os tipos",
}
"""pydantic's own messages, by the kind of error, with what it names in its context."""

_PLACE: Final = re.compile(r"\{(\w+)\}")


def title(code: str, english: str) -> str:
    """The title of a problem with this code."""
    return TITLES.get(code, english)


def sentence(english: str, depth: int = MAX_DEPTH) -> str:
    """*english* in Portuguese, or as it is where the catalogue does not know it."""
    if english in _PLAIN:
        return _PLAIN[english]
    for pattern, portuguese in _PATTERNS if depth else ():
        found = pattern.fullmatch(english)
        if found is not None:
            return portuguese.format_map(
                {name: _filled(name, text, depth - 1) for name, text in found.groupdict().items()}
            )
    return english


def validation(error: Mapping[str, Any], english: str) -> str:
    """What is wrong with one value, given pydantic's *error* and what is said about it in English."""
    template = VALIDATION.get(error["type"])
    if template is None:
        return sentence(english)
    context = {name: str(value).replace(" or ", " ou ") for name, value in error.get("ctx", {}).items()}
    try:
        return template.format_map(context)
    except KeyError:  # pydantic names its contexts as it likes
        return english


def _filled(name: str, text: str, depth: int) -> str:
    if name in ("mistake", "whose", "why"):
        return sentence(text, depth)
    return text.replace(" or ", " ou ") if name == "choices" else text


def _compiled(english: str) -> re.Pattern[str]:
    pieces = _PLACE.split(english)  # text, place, text, place, …, text
    places = [f"(?P<{name}>{PLACES[name]})" for name in pieces[1::2]]
    texts = [re.escape(text) for text in pieces[0::2]]
    return re.compile("".join(text + place for text, place in zip(texts, [*places, ""], strict=True)))


_PLAIN: Final = {english: portuguese for english, portuguese in SENTENCES.items() if not _PLACE.search(english)}
_PATTERNS: Final = [
    (_compiled(english), portuguese) for english, portuguese in SENTENCES.items() if _PLACE.search(english)
]
